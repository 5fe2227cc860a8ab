"""COCO's average precision to the last bit of pycocotools, on flat arrays."""
