"""Detectron2's dataset mapper, several times as fast and with the same result."""
