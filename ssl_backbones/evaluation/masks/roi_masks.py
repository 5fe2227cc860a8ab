"""Masks at their own size, under the name that scripts of 0.1 hold."""

from ...fast.evaluation.roi_masks import WithRoiMasks

__all__ = ["WithRoiMasks"]
