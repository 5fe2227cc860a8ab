"""Several processes at once, as a user would start them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import free_port, wait_for


class Ranks:
    """Runs of ranks.py, whose results go to `folder`."""

    def __init__(self, folder):
        self.folder = folder
        self._started = []

    def start(self, what, *flags, by=(sys.executable,)):
        """Start the program in a session of its own, as Ctrl-C goes to a whole process group."""
        program = str(Path(__file__).with_name("ranks.py"))
        process = subprocess.Popen(
            [*by, program, str(self.folder), what, *flags],
            env={
                **os.environ,
                "PYTHONPATH": os.getcwd(),
                "OMP_NUM_THREADS": "1",
                # What torch tells Detectron2 at import, of which every rank has a copy.
                "PYTHONWARNINGS": "ignore",
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, what, *flags, **options):
        """Run the program, with two processes if nothing else is said; returns what `finish` does."""
        return self.finish(self.start(what, *(flags or ("--num-processes", "2")), **options))

    def two_machines(self, what):
        url = f"tcp://127.0.0.1:{free_port()}"
        flags = ("--num-machines", "2", "--dist-url", url, "--machine-rank")
        return [self.start(what, *flags, str(number)) for number in (0, 1)]

    @staticmethod
    def finish(process):
        """Wait for the end; returns the exit status and the lines of standard error."""
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors.splitlines()

    @property
    def states(self):
        """What the two ranks have left."""
        return [json.loads((self.folder / f"{rank}.json").read_text()) for rank in (0, 1)]

    def wait_until_ready(self, size=2):
        wait_for(lambda: len(list(self.folder.glob("ready.*"))) == size)

    def clean_up(self):
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def ranks(tmp_path):
    runs = Ranks(tmp_path)
    yield runs
    runs.clean_up()
