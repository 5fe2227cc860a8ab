"""The embedded set: digits over photographs, as a dataset of its own, and as VOC and COCO in miniature."""
