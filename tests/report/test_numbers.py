"""How a report writes numbers."""

from ssl_backbones.report.analysis.findings import Interval
from ssl_backbones.report.wording import percent, signed, signed_span, span


def test_numbers_have_a_minus_and_no_value_is_a_dash():
    assert [percent(v) for v in (None, float("nan"), 0.04, -1.26)] == ["–", "–", "0.0", "−1.3"]
    assert [signed(v) for v in (None, float("nan"), 0, -0.0, 1.26, -1.26)] == [
        *("–", "–", "0", "0", "+1.3", "−1.3")
    ]


def test_intervals_go_from_low_to_high_and_none_is_a_dash():
    interval = Interval(0.5, -0.26, 1.26)
    assert [span(interval), signed_span(interval)] == ["−0.3 to 1.3", "−0.3 to +1.3"]
    assert [span(None), signed_span(None)] == ["–", "–"]
