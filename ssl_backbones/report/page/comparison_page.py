"""What came out of a comparison of backbones, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ... import __version__
from ...tables import Table
from ..content import RunContent
from ..wording import encodable
from .html_page import POLICY, page_environment
from .plots import DASHES, NUM_COLOURS, learning_curves


def format_comparison_page(
    name: str,
    facts: Mapping[str, str],
    told: Sequence[str],
    tables: Sequence[Table],
    runs: Sequence[RunContent],
) -> str:
    """The page as HTML; it can be written as UTF-8, and no picture of the data is in it.

    Args:
        name: of the data.
        facts: how the comparison was made, by what they are.
        told: what came out, a sentence each.
        runs: an arm each, of whose curves there is a panel for each scalar.

    Raises:
        ModuleNotFoundError: jinja2 or matplotlib is not installed.
    """
    from markupsafe import Markup

    page = page_environment().get_template("comparison.html")
    return encodable(
        page.render(
            name=name,
            facts=facts,
            told=told,
            tables=tables,
            runs=runs,
            curves=learning_curves(runs),
            dashes=DASHES,
            num_colours=NUM_COLOURS,
            policy=POLICY,
            markup=Markup,
            version=__version__,
        )
    )
