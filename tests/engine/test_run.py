"""A run has its folder for itself while it trains."""

import subprocess
import sys

import pytest

from ssl_backbones.engine.run import alone_in_run
from ssl_backbones.errors import InputError

HOLD = """
import sys
from ssl_backbones.engine.run import alone_in_run
with alone_in_run(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_training_is_kept_out_until_the_first_is_gone(tmp_path):
    folder = str(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match=f"another run is at work in {folder}: wait for it or"),
            alone_in_run(folder),
        ):
            pass
        other.kill()
        other.wait()
    with alone_in_run(folder):
        pass
    # Nothing of it stays in the folder.
    assert list((tmp_path / "run").iterdir()) == []
    with alone_in_run(folder):
        pass
