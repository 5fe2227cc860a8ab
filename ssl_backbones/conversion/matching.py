"""Patterns for the names in state dicts: which names one covers, and how it renames them.

The language is `registry.py`'s: dotted parts that match whole, `*` within a part, `**` for any parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from .registry import Renames


def covers(pattern: str, key: str) -> bool:
    """Whether `pattern` names `key` or something above it, part by part."""
    return _matcher(pattern).match(key) is not None


def reason_to_drop(reasons: Mapping[str, str], key: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if covers(pattern, key)), None)


def renamed(name: str, renames: Renames) -> str:
    """`name` after every rename that applies to it, in their order."""
    for old, new in renames:
        if match := _matcher(old).match(name):
            kept = iter(match.groups())
            start = re.sub(r"\*", lambda _, kept=kept: next(kept), new)
            name = start + name[match.end() :]
    return name


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> re.Pattern:
    """Matches a name's beginning up to the end of a part; groups are what the `*` stand for."""
    before = r"(?:.*\.)?" if pattern.startswith("**.") else ""
    parts = map(re.escape, pattern.removeprefix("**.").split("*"))
    return re.compile(rf"{before}{'([^.]*)'.join(parts)}(?=\.|\Z)", re.DOTALL)
