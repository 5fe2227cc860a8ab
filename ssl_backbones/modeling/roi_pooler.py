"""The pooler under the name that configs of 0.1 hold."""

from ..fast.pooling.roi_pooler import FastROIPooler

__all__ = ["FastROIPooler"]
