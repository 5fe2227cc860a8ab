"""Reads the commands of a Markdown page, and what the page says that they print."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_BASH = re.compile(r"^```bash\n(.*?)^```\n(?:\s*^```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_STATUS = re.compile(r"#.*\bexits with (\d+)")
_FILE = re.compile(r"# (\S+\.py)\n")


@dataclass
class Command:
    """A command line as it stands on a page.

    Attributes:
        status: the exit status that its comment states (`# exits with 2`), else 0.
        printed: what is shown of its output; `...` stands for anything.
    """

    line: str
    status: int = 0
    printed: list[str] = field(default_factory=list)


def commands(text: str) -> dict[str, Command]:
    """The commands of all bash blocks, in order, each once.

    A text block right after a bash block is what the last command of that block prints.

    Args:
        text: of one page or of several, one after the other.
    """
    found: dict[str, Command] = {}
    for block, printed in _BASH.findall(text):
        command = None
        for line in block.replace("\\\n", " ").splitlines():
            words = re.split(r"(?:^|\s+)#", line)[0].strip()
            if not words:
                continue
            command = found.setdefault(words, Command(words))
            if status := _STATUS.search(line):
                command.status = int(status[1])
        if printed:
            assert command is not None, f"nothing prints {printed!r}"
            command.printed.append(printed)
    return found


def python_blocks(text: str) -> list[str]:
    return _PYTHON.findall(text)


def files(text: str) -> dict[str, str]:
    """The files that a page shows whole: python blocks whose first line is a comment with the name."""
    blocks = ((_FILE.match(block), block) for block in python_blocks(text))
    return {named[1]: block for named, block in blocks if named}


def shows(output: str, printed: str) -> bool:
    """Whether the output holds what a page shows of it, in order, wherever lines are broken."""
    parts = (re.escape(" ".join(part.split())) for part in printed.split("..."))
    return re.search(".*".join(parts), " ".join(output.split())) is not None
