"""The same small run by every launcher: the same weights, to the last bit."""

import os
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from running import TINY, checkpoint, children, difference, torchrun, wait_for

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
TRAIN = ("tools/train_net.py", "--config-file", TINY)


def same(folder, other):
    one, two = checkpoint(folder), checkpoint(other)
    return difference(one["model"], two["model"]) or difference(one["trainer"], two["trainer"])


def test_spawn_trains_alike(whole, tmp_path):
    """`whole` was started by hand, with the environment that torchrun gives."""
    command = [sys.executable, *TRAIN, "--num-processes", "2", f"train.output_dir={tmp_path}"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Weights: ") == 1
    assert same(tmp_path, whole(2)) is None


def test_submitit_trains_alike(whole, tmp_path, monkeypatch, untouched_loggers):
    from ssl_backbones.engine.run import run

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    flags = Namespace(
        config_file=TINY,
        opts=[f"train.output_dir={tmp_path}"],
        num_gpus=None,
        num_processes=2,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
        resume=False,
        eval_only=False,
        dry_run=False,
        slurm="cluster=local,time=60",
        data=None,
        classes=None,
        init=None,
        val_share=None,
        epochs=None,
    )
    assert run(flags) == 0
    wait_for(lambda: list((tmp_path / "slurm").glob("*_result.pkl")))
    (errors,) = (tmp_path / "slurm").glob("*_log.err")
    assert (tmp_path / "model_final.pth").exists(), errors.read_text()
    assert same(tmp_path, whole(2)) is None


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads Linux's /proc")
def test_torchrun_resumes_by_itself_after_a_worker_is_killed(whole, tmp_path):
    """The worker is killed once the first checkpoint is there; the last must be that of a whole run."""
    log = tmp_path / "torchrun.txt"
    command = [*torchrun("--max-restarts=1"), *TRAIN, f"train.output_dir={tmp_path / 'run'}"]
    with log.open("w") as file:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=file, stderr=file)
    try:
        wait_for(lambda: list((tmp_path / "run").glob("model_0*.pth")))
        os.kill(workers(process.pid)[-1], signal.SIGKILL)
        assert process.wait(300) == 0, log.read_text()
    finally:
        process.kill()
    assert "exitcode: -9" in log.read_text()
    assert log.read_text().count("Weights: ") == 1
    assert "resumed from" in (tmp_path / "run" / "log.txt").read_text()
    assert same(tmp_path / "run", whole(2)) is None


def workers(torchrun_pid):
    """The ranks that torchrun has started, the last one last."""
    pids = children(torchrun_pid)
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    return sorted(pid for pid, line in lines.items() if b"train_net.py" in line)
