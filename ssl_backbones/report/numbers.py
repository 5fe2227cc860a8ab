"""How a report writes numbers in percent and their intervals, on a page and in Markdown alike."""

from __future__ import annotations

from .analysis.findings import Interval

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
