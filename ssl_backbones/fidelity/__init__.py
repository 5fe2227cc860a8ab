"""Published recipes as data (fidelity.yaml): every field beside ours, its source, and why it differs."""

from .checking import check, check_fields
from .rows import Fidelity, Row, read
from .tables import insert, table

__all__ = ["Fidelity", "Row", "check", "check_fields", "insert", "read", "table"]
