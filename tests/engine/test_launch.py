"""Real processes: gloo on the CPU, spawned as the trainer spawns them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
import torch, torch.distributed as dist
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from ssl_backbones import InputError
from ssl_backbones.engine.launch import World, launch

def body(folder, what):
    rank = comm.get_rank()
    if what == "input error" and rank == 1:
        raise InputError("rank 1 found a hole")
    if what == "bug" and rank == 1:
        raise ValueError("a bug")
    torch.manual_seed(0)
    images = torch.randn(4, 3, 5, 5)
    norm = NaiveSyncBatchNorm(3)
    mine = norm(images[2 * rank : 2 * rank + 2])
    state = dict(rank=rank, local=comm.get_local_rank(), size=comm.get_world_size(),
                 backend=dist.get_backend(), mean=norm.running_mean.tolist(), out=mine.flatten().tolist())
    json.dump(state, open(os.path.join(folder, f"{rank}.json"), "w"))

if __name__ == "__main__":
    sys.exit(launch(body, World(processes=2), sys.argv[1], sys.argv[2]))
"""


@pytest.fixture
def run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(what):
        command = [sys.executable, str(script), str(tmp_path), what]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=os.getcwd(), env=env()
        )

    def env():
        return {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}

    return run


def test_two_gloo_processes_normalise_over_both_batches(run, tmp_path):
    import torch

    assert run("").returncode == 0
    states = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [(s["rank"], s["local"], s["size"], s["backend"]) for s in states] == [
        (0, 0, 2, "gloo"),
        (1, 1, 2, "gloo"),
    ]
    # nn.BatchNorm2d over the four images together is the independent answer.
    torch.manual_seed(0)
    whole = torch.nn.BatchNorm2d(3)
    expected = whole(torch.randn(4, 3, 5, 5))
    got = torch.tensor(states[0]["out"] + states[1]["out"])
    assert torch.allclose(got, expected.flatten(), atol=1e-5)
    assert torch.allclose(torch.tensor(states[0]["mean"]), whole.running_mean, atol=1e-6)


def test_an_input_error_in_one_process_is_one_line_and_status_2(run):
    result = run("input error")
    assert result.returncode == 2
    assert "error: rank 1 found a hole" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads Linux's /proc")
def test_a_process_that_waits_for_others_ends_with_its_parent(tmp_path):
    """The second machine never comes; the parent is killed without a chance to clean up."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("World(processes=2)", 'World("cpu", 1, 2, 0, "auto")'))
    command = [sys.executable, str(script), str(tmp_path), ""]
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)

    def children():
        return Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()

    def listens(pid):
        """Whether the child has come as far as the meeting point: it holds a socket."""
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            # A file that the child closes in between is none.
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(descriptor).startswith("socket:"):
                    return True
        return False

    try:
        (waiting,) = wait_for(lambda: [p for p in children() if listens(p)])
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not is_running(waiting))


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return result


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_bug_in_one_process_keeps_its_traceback(run):
    result = run("bug")
    assert result.returncode == 1
    assert "ValueError: a bug" in result.stderr
