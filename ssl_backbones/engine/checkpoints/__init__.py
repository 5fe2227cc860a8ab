"""Checkpoints of a run: written whole, checked when read, found in their folder."""
