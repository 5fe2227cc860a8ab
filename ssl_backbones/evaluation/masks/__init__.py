"""Masks as a detector predicts them, 28 x 28 a box, to COCO run lengths without pasting them."""
