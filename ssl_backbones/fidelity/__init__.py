"""Published recipes as data (fidelity.yaml): every field beside ours, its source, and why it differs.

The configs are held to them by tests/configs.
"""

from .rows import Fidelity, Row, insert, read, table

__all__ = ["Fidelity", "Row", "insert", "read", "table"]
