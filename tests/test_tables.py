"""Tables as text, Markdown, CSV and HTML."""

import csv
import io

import pytest
from markupsafe import Markup

from ssl_backbones.tables import Table, format_cell

TABLE = Table("Average precision", ["run", "AP"], [["a", 38.0], ["b & c", None]])


def test_text_in_columns_with_numbers_as_they_are_given():
    assert TABLE.format_text() == "run    AP\n-----  ----\na      38.0\nb & c"
    # tabulate would read 1e5 and 007 as numbers.
    assert (
        Table("", (), [["x", "1e5"], ["long", "007"]]).format_text("plain")
        == "x     1e5\nlong  007"
    )


def test_wide_cells_are_broken():
    text = Table("", ("a", "b"), [["one two", "one two"]]).format_text("plain", widths=[None, 4])
    assert text == "a        b\none two  one\n         two"


def test_markdown_bare_or_aligned():
    assert TABLE.format_markdown() == "| run | AP |\n|---|---|\n| a | 38.0 |\n| b & c |  |"
    assert TABLE.format_markdown(rule=" --- ").splitlines()[1] == "| --- | --- |"
    assert TABLE.format_markdown(aligned=True) == (
        "| run   | AP   |\n|-------|------|\n| a     | 38.0 |\n| b & c |      |"
    )
    assert Table("", ["run"], []).format_markdown() == "| run |\n|---|"


def test_csv_is_read_as_it_was_written():
    table = Table("", ["name", "AP"], [['a "b",\nc', 0.1 + 0.2], ["d", None]])
    text = table.format_csv()
    assert text.startswith("name,AP\n")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["name", "AP"], ['a "b",\nc', "0.30000000000000004"], ["d", ""]]


def test_html_escapes_all_but_markup():
    table = Table("a & b", ["run", "<AP>"], [["a", Markup("<b>1</b>")], ["<script>", 'x "y"']])
    assert table.format_html("numbers") == (
        '<table class="numbers"><caption>a &amp; b</caption>\n'
        '<thead><tr><th scope="col">run</th><th scope="col">&lt;AP&gt;</th></tr></thead>\n'
        '<tbody><tr><th scope="row">a</th><td><b>1</b></td></tr>\n'
        '<tr><th scope="row">&lt;script&gt;</th><td>x &#34;y&#34;</td></tr>\n'
        "</tbody></table>"
    )


def test_records_have_nothing_in_place_of_what_they_lack():
    records = [{"a": 1}, {"b": 2, "a": 3}]
    assert Table.of_records("", iter(records)) == Table("", ["a", "b"], [[1, None], [3, 2]])
    assert Table.of_records("", records, ("b", "a")) == Table("", ["b", "a"], [[None, 1], [2, 3]])
    with pytest.raises(ValueError, match="no column is for b"):
        Table.of_records("", records, ("a",))


@pytest.mark.parametrize(
    ("value", "cell"), [("a | b", "a \\| b"), ("<b>", "&lt;b>"), ("a\n  b", "a b"), (None, "")]
)
def test_a_cell_is_one_line_that_ends_no_cell(value, cell):
    assert format_cell(value) == cell
