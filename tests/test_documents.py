"""README, docs, changelog and citation: links lead somewhere, and what is said twice is the same."""

import re
from pathlib import Path

import pytest
import yaml

import ssl_backbones
from ssl_backbones.conversion.layouts import LAYOUTS
from ssl_backbones.weights.resolution import NAMED_WEIGHTS

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs"
PAGES = [
    *CHECKOUT.glob("*.md"),
    *DOCS.glob("*.md"),
    *(path for path in (CHECKOUT / "projects").glob("*/*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text(path):
    return path.read_text(encoding="utf-8")


def anchors(page):
    """As GitHub makes them of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    for target in LINK.findall(FENCED.sub("", text(page))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# One `two`, three\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#one-two-three) [b](there.md#two) [c](gone.md) [d](https://x.org)\n"
        "```bash\n[e](gone.md)\n```\n"
    )
    assert list(broken_links(page)) == ["there.md#two", "gone.md"]


def test_the_index_names_every_page():
    named = set(LINK.findall(text(DOCS / "README.md")))
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert pages <= named


def test_pictures_are_small_described_and_used():
    shown = [
        found
        for page in (CHECKOUT / "README.md", CHECKOUT / "projects" / "digits" / "README.md")
        for found in re.findall(r"!\[([^\]]*)\]\((?:\.\./)*docs/images/([^)]+)\)", text(page))
    ]
    files = list((DOCS / "images").iterdir())
    assert {name for _, name in shown} == {path.name for path in files}
    assert all(len(description) > 20 for description, _ in shown)
    assert sum(path.stat().st_size for path in files) < 400_000


def test_the_number_of_layouts():
    for page in ("README.md", "CHANGELOG.md"):
        assert re.findall(r"(\d+) layouts", text(CHECKOUT / page)) == [str(len(LAYOUTS))]


def test_the_page_of_named_weights_has_them_all():
    named = re.findall(r"`(ssl://\w+)`", text(DOCS / "dead_links.md").partition("## Weights by")[2])
    assert named == [f"ssl://{name}" for name in NAMED_WEIGHTS]


def test_the_citation_has_what_its_format_demands():
    """The Citation File Format 1.2.0's required fields, and its types of authors."""
    citation = yaml.safe_load(text(CHECKOUT / "CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"]
    assert str(citation["version"]) == ssl_backbones.__version__
    assert citation["type"] in ("software", "dataset")
    for work in (citation, *citation["references"]):
        assert work["title"] and work["authors"]
        for author in work["authors"]:
            assert author.keys() in ({"name"}, {"family-names", "given-names"})
    for work in citation["references"]:
        assert work["type"] in ("article", "conference-paper")
        assert isinstance(work["year"], int)
        # Every work that the page of the recipes cites, and no other.
        assert f"title={{{work['title']}}}" in text(DOCS / "recipes.md")
    assert len(citation["references"]) == text(DOCS / "recipes.md").count("  title={")


def test_the_changelog_knows_this_version():
    changelog = text(CHECKOUT / "CHANGELOG.md")
    assert f"What {ssl_backbones.__version__} will be." in changelog
    assert "## [Unreleased]" in changelog
