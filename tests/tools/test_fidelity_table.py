"""The command that makes the tables of the pages."""

import pytest

from ssl_backbones.fidelity import read, table
from ssl_backbones.fidelity.rows import BEGIN, END
from tools import fidelity_table

FILE = "projects/voc_c4/fidelity.yaml"


def test_it_prints_the_table_or_puts_it_into_a_page(tmp_path, capsys):
    text = table(read(FILE))
    assert fidelity_table.main([FILE]) == 0
    assert capsys.readouterr().out == text
    page = tmp_path / "README.md"
    # Those of another table on the same page stay as they are.
    other = "\n".join(marker.format("configs") for marker in (BEGIN, END))
    begin, end = (marker.format("voc_c4") for marker in (BEGIN, END))
    page.write_text(f"# Title\n{other}\n{begin}\n{end}\nlast\n")
    assert fidelity_table.main([FILE, "--into", str(page)]) == 0
    assert page.read_text() == f"# Title\n{other}\n{begin}\n\n{text}\n{end}\nlast\n"
    assert str(page) in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["none.yaml"], [FILE, "--into", "none.md"], [FILE, "--into", FILE]]
)
def test_bad_usage_is_one_line(words, capsys):
    assert fidelity_table.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
