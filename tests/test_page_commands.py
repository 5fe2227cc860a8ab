"""What the suite takes from a page's Markdown."""

import pytest
from page_commands import Command, commands, files, python_blocks, shows

PAGE = """x
```bash
a \\
 b
c   # exits with 2: why
```

```text
said by c
```
```python
# one.py
d
```
text
```bash
a  b
c
```
```text
more of c
```
```python
e
```
"""


def test_commands_in_order_with_what_they_print_and_their_status():
    assert list(commands(PAGE).values()) == [
        Command("a   b"),
        Command("c", 2, ["said by c\n", "more of c\n"]),
        Command("a  b"),
    ]


def test_python():
    assert python_blocks(PAGE) == ["# one.py\nd\n", "e\n"]
    assert files(PAGE) == {"one.py": "# one.py\nd\n"}


@pytest.mark.parametrize(
    ("printed", "is_shown"),
    [
        ("one two", True),
        ("one\n   two\nthree", True),
        ("one ...\nfour", True),
        ("...four", True),
        ("two one", False),
        ("three ... two", False),
        ("one three", False),  # what lies between is not left out without a word
        ("o.e", False),
    ],
)
def test_output_that_a_page_shows(printed, is_shown):
    assert shows("one  two\n three (4)\nfour\n", printed) is is_shown
