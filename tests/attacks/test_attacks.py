"""Every row of README.md, through the real command: refused as it says, or read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = dict(
    re.findall(r"^\| (?!attack)(\S.*?) \| (.*) \|$", (HERE / "README.md").read_text(), re.M)
)
SECONDS = 20


@pytest.fixture(scope="module")
def outcomes(run_tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each reserves memory
    result = run_tool(str(HERE / "attacks.py"), str(folder), env=os.environ | threads)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_every_attack_stands_in_the_readme(outcomes):
    assert list(outcomes) == list(ROWS)


@pytest.mark.parametrize("attack", ROWS)
def test_attack(outcomes, attack):
    outcome = outcomes[attack]
    if ROWS[attack] == "converts":
        assert (outcome["status"], outcome["stderr"], outcome["left"]) == (0, "", ["result.pkl"])
    else:
        assert outcome["status"] == 2
        assert outcome["stderr"].startswith("error: ")
        assert outcome["stderr"].index("\n") == len(outcome["stderr"]) - 1
        assert ROWS[attack] in outcome["stderr"]
        assert outcome["left"] == []
    assert not set(outcome["inspected"]) & {"\x1b", "\r"}
    assert "Traceback" not in outcome["inspected"]
    assert outcome["seconds"] < SECONDS
