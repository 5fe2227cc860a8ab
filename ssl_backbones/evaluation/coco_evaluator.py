"""The evaluator under the name that configs of 0.1 hold."""

from ..fast.evaluation.coco_evaluator import FastCOCOEvaluator

__all__ = ["FastCOCOEvaluator"]
