"""Work that one rank does for all, and facts that must be the same everywhere."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import ssl_backbones
from ssl_backbones import InputError
from ssl_backbones.engine.launching import agreement

HOST = socket.gethostname()
PACKAGE = Path(ssl_backbones.__file__).parent


def test_one_rank_works_for_all_however_long_it_takes(ranks):
    """A second is a collective operation's limit in ranks.py then, and the work takes two."""
    machines = ranks.two_machines("agree")
    assert [ranks.finish(machine) for machine in machines] == [(0, []), (0, [])]
    assert [state["main"] for state in ranks.states] == ["by rank 0"] * 2
    assert [state["machine"] for state in ranks.states] == ["by rank 0", "by rank 1"]


def test_ranks_that_disagree_are_refused(ranks):
    status, errors = ranks.run("disagree")
    assert status == 2
    assert errors == [
        f"error: the ranks disagree on the code version: 0.0 in rank 0 on {HOST}, 0.1 in rank 1 on {HOST}; "
        f"all must run the same (rank 0 on {HOST})"
    ]


def test_a_mistake_on_another_machine_is_said_with_its_host(ranks):
    for machine in ranks.two_machines("refuse_on_a_machine"):
        status, errors = ranks.finish(machine)
        assert status == 2
        assert errors == [f"error: found a hole (on {HOST}) (rank 0 on {HOST})"]


def test_a_process_alone_agrees_with_itself():
    agreement.check_agreement({"config": "abc"})
    assert agreement.on_main_process(lambda: 3) == agreement.on_each_machine(lambda: 3) == 3

    def refuse():
        raise InputError("found a hole")

    with pytest.raises(InputError, match="found a hole"):
        agreement.on_main_process(refuse)


def test_a_fact_that_one_rank_lacks_is_a_difference():
    cards = [({"config": "abc"}, "a"), ({"config": "abc"}, "b"), ({}, "c")]
    assert "config: abc in rank 0 on a, None in rank 2 on c" in agreement._disagreement(cards)
    assert agreement._disagreement(cards[:2]) is None


@pytest.mark.skipif(not (PACKAGE.parent / ".git").exists(), reason="not a checkout")
def test_the_code_version_names_the_commit():
    command = ["git", "-C", str(PACKAGE.parent), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{ssl_backbones.__version__}, commit {commit[:12]}" in agreement.code_version()


def test_the_code_version_tells_an_edit_without_git(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "ssl_backbones", ignore=shutil.ignore_patterns("*.pyc"))

    def version():
        command = "from ssl_backbones.engine.launching.agreement import code_version; print(code_version())"
        return subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    before = version()
    assert re.fullmatch(rf"{ssl_backbones.__version__}, sources [0-9a-f]{{12}}\n", before)
    assert agreement.code_version().endswith(before.strip().partition(", ")[2])
    with open(tmp_path / "ssl_backbones" / "errors.py", "a") as file:
        file.write("# an edit\n")
    assert version() != before
