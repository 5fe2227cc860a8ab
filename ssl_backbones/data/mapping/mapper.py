"""The mapper under the name that configs of 0.1 hold."""

from ...fast.mapping.mapper import FastDatasetMapper

__all__ = ["FastDatasetMapper"]
