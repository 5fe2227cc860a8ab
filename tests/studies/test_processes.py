"""Commands in processes of their own: what becomes of them when one fails, and when all are to end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.studies import processes
from ssl_backbones.studies.processes import Step, alone_in, run_steps


def step(name, code):
    return Step(name, ("-c", code), Path("nothing"))


def test_a_command_that_fails_stops_no_other(tmp_path):
    ended = {}
    steps = [
        step("bad", "print('why'); raise SystemExit(3)"),
        step("good", "import os; print(os.environ['SAID'])"),
    ]
    run_steps(
        steps,
        folder=tmp_path,
        jobs=1,
        logs=tmp_path / "logs",
        variables={"SAID": "this"},
        on_end=lambda step, outcome: ended.update(
            {step.name: (outcome.status, outcome.last_line())}
        ),
    )
    assert ended == {"bad": (3, "why"), "good": (0, "this")}


def test_those_that_run_at_once_have_a_place_each(tmp_path):
    """Such as a GPU: of three commands on two places the third takes the one that is free first."""
    told = {}
    says = "import os, time; time.sleep({}); print(os.environ['PLACE'])"
    run_steps(
        [
            step("long", says.format(1.5)),
            step("short", says.format(0)),
            step("third", says.format(0)),
        ],
        folder=tmp_path,
        jobs=2,
        logs=tmp_path / "logs",
        variables={},
        on_end=lambda step, outcome: told.update({step.name: outcome.last_line()}),
        places=[{"PLACE": "0"}, {"PLACE": "1"}],
    )
    assert told == {"long": "0", "short": "1", "third": "1"}


def test_an_interruption_ends_the_commands_and_waits(tmp_path):
    def interrupt(step, outcome):
        raise KeyboardInterrupt

    pid = tmp_path / "pid"
    sleeps = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    waits = f"import os, time\nwhile not os.path.exists({str(pid)!r}): time.sleep(0.05)"
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_steps(
            [step("sleeps", sleeps), step("waits", waits)],
            folder=tmp_path,
            jobs=2,
            logs=tmp_path,
            variables={},
            on_end=interrupt,
        )
    assert time.monotonic() - start < 90
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.fixture()
def folder(tmp_path):
    """A folder to be alone in."""
    return tmp_path / "study"


STUDY = """
import sys
from pathlib import Path
from ssl_backbones.studies.processes import Step, alone_in, run_steps

folder, code = Path(sys.argv[1]), sys.argv[2]
with alone_in(folder):
    steps = [Step("step", ("-c", code), Path("nothing"))]
    run_steps(steps, folder=folder, jobs=1, logs=folder, variables={}, on_end=print)
"""

SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(1)
    open("saved", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, save)
open("started", "w").close()
time.sleep(100)
"""


def test_commands_of_one_that_is_killed_save_before_the_next_one_starts(folder):
    """SIGKILL leaves it no time to ask them to: the system does."""
    study = subprocess.Popen([sys.executable, "-c", STUDY, str(folder), SAVES])
    end = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < end:
        time.sleep(0.05)
    study.kill()
    study.wait()
    with alone_in(folder):
        assert (folder / "saved").exists()


def test_nobody_else_starts_where_one_is_at_work(folder, monkeypatch):
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 0.2)
    with (
        alone_in(folder),
        pytest.raises(InputError, match="another one is running in"),
        alone_in(folder),
    ):
        pass
    with alone_in(folder):
        pass


def test_a_folder_that_cannot_be_made_is_refused(folder):
    folder.write_text("")
    with pytest.raises(InputError, match="cannot write to"), alone_in(folder):
        pass


def test_what_goes_wrong_inside_is_not_said_of_the_folder(folder):
    with pytest.raises(FileNotFoundError, match="/no/such/file"), alone_in(folder):
        open("/no/such/file").close()
    with alone_in(folder):  # is free again
        pass


def test_sigterm_is_afterwards_what_it_was(folder):
    def handler(*_):
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with alone_in(folder):
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is handler
        with pytest.raises(ZeroDivisionError), alone_in(folder):
            raise ZeroDivisionError
        assert signal.getsignal(signal.SIGTERM) is handler
        (folder / ".lock").unlink()
        (folder / ".lock").mkdir()
        with pytest.raises(InputError, match="cannot write to"), alone_in(folder):
            pass
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_logs_that_cannot_be_written_are_refused(tmp_path):
    def run(logs):
        run_steps(
            [step("good", "")],
            folder=tmp_path,
            jobs=1,
            logs=logs,
            variables={},
            on_end=lambda *_: None,
        )

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        run(tmp_path / "file")
    (tmp_path / "logs" / "good.txt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot write to .*logs"):
        run(tmp_path / "logs")
