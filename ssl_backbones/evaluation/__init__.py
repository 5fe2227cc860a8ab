"""COCO metrics of a model, in Detectron2's numbers and in a file that a program can read."""
