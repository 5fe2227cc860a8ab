"""Annotations of datasets in COCO format: checked, packed, and shared by all processes."""
