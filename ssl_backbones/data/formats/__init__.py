"""Data that is a label file for each image: YOLO, Pascal VOC and labelme, each turned into COCO's form."""
