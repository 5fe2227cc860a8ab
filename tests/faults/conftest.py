"""Every test here is a row of one table: a fault, and what is stated to happen."""

from pathlib import Path

import pytest
from tabulate import tabulate


def pytest_collection_modifyitems(config, items):
    """The suite takes a slice of the faults; `make faults` takes all of them."""
    if config.getoption("every_fault"):
        return
    here = Path(__file__).parent
    left_out = [i for i in items if here in i.path.parents and i.get_closest_marker("many")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter, config):
    """Print the table; a row that has failed says so."""
    if not config.getoption("every_fault"):
        return
    rows = []
    for result in ("passed", "failed"):
        for report in terminalreporter.stats.get(result, ()):
            stated = dict(report.user_properties)
            if report.when == "call" and "fault" in stated:
                happened = "as stated" if result == "passed" else "NOT as stated"
                rows.append((stated["fault"], stated["outcome"], happened))
    terminalreporter.section("faults")
    terminalreporter.write_line(
        tabulate(rows, ["fault", "stated outcome", "happened"], maxcolwidths=[48, 60, 14])
    )
    good = sum(happened == "as stated" for *_, happened in rows)
    terminalreporter.write_line(f"{good} of {len(rows)} as stated")


@pytest.fixture
def stated(record_property):
    """State the row of this test: `stated("a fault", "what happens")`."""

    def state(fault: str, outcome: str) -> None:
        record_property("fault", fault)
        record_property("outcome", outcome)

    return state
