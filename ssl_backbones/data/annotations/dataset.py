"""The packed dataset under the name that configs of 0.1 hold."""

from ...fast.annotations.packed_dataset import packed_detection_dataset

__all__ = ["packed_detection_dataset"]
