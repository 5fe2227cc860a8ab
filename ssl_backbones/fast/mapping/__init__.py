"""From an image's file and annotations to the model's input, several times as fast as by Detectron2's mapper.

Equals `DatasetMapper` in every pixel, box, polygon and random draw. Left to Detectron2, for that input alone:
other augmentations than resizing and flipping, other formats than RGB and BGR, key points, run-length and bit
masks, unusual JPEG files, or all of them without simplejpeg. Without numba, Pillow resizes.
"""
