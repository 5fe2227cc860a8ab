"""Numbers as a report writes them, and text from files, which may hold what no file or picture can."""

from __future__ import annotations

from typing import Any

from .analysis.findings import Interval


def encodable(text: str) -> str:
    """Lone surrogates, which UTF-8 has no bytes for, as their escapes; all other text as it is.

    They come from JSON, which may name them, and from file names that are not UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def all_encodable(content: Any) -> Any:
    """The content of a JSON file, in which each text, those of keys as well, is `encodable`.

    Raises:
        RecursionError: it is nested too deeply.
    """
    if isinstance(content, str):
        return encodable(content)
    if isinstance(content, list):
        return [all_encodable(item) for item in content]
    if isinstance(content, dict):
        return {all_encodable(key): all_encodable(item) for key, item in content.items()}
    return content


NONE = "–"


def percent(value: float | None) -> str:
    """One decimal, as AP is told; a dash where there is none."""
    return NONE if value is None or value != value else f"{value:.1f}".replace("-", "−")


def signed(value: float | None) -> str:
    """With its sign, which is a minus and no hyphen; an exact zero has none, and nothing is a dash."""
    if value is None or value != value:
        return NONE
    return "0" if value == 0 else f"{value:+.1f}".replace("-", "−")


def span(interval: Interval | None) -> str:
    """ "50.1 to 57.3"; a dash where there is none."""
    return NONE if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"


def signed_span(interval: Interval | None) -> str:
    """The same of a difference: "−1.2 to +3.4"."""
    return NONE if interval is None else f"{signed(interval.low)} to {signed(interval.high)}"
