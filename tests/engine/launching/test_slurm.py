"""Jobs by submitit: on this machine by its local executor; what Slurm would be asked for, by its own text."""

import importlib
import os
import signal
import threading
from argparse import Namespace
from pathlib import Path

import pytest
from running import children, wait_for

from ssl_backbones import InputError
from ssl_backbones.engine.launching import slurm
from ssl_backbones.engine.launching.failures import PREEMPTED


def flags(text, **given):
    defaults = dict(
        num_gpus=None,
        num_processes=None,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
        resume=False,
        timeout=60,
    )
    return Namespace(slurm=text, **(defaults | given))


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Submit ranks.py as a job on this machine; returns the job and its folder."""
    here = Path(__file__).parent
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.setenv("PYTHONPATH", f"{os.getcwd()}{os.pathsep}{here}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    body = importlib.import_module("ranks").run
    jobs = []

    def submit(what, processes):
        given = flags(
            "cluster=local,time=60", num_processes=processes, folder=str(tmp_path), what=what
        )
        jobs.append(slurm.submit(given, body, device="cpu", output_dir=str(tmp_path)))
        return jobs[-1]

    yield submit
    for job in jobs:
        if not job.done():
            os.kill(int(job.job_id), signal.SIGKILL)


def task_of(job):
    """The process in which submitit runs the job's one task; its controller starts it."""
    return children(int(job.job_id))[0]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads Linux's /proc")
def test_a_job_that_is_taken_away_saves_and_resumes(submit, ranks, tmp_path, capsys):
    """The signal comes as Slurm sends it before the end of a job's time; ranks.py resumes to do nothing."""
    job = submit("until_asked", 2)
    ranks.wait_until_ready()
    os.kill(task_of(job), signal.SIGUSR1)
    wait_for(lambda: (tmp_path / "1.json").exists())
    # Both ranks said that they had saved, before the job was put back and came to its end.
    assert f'"status": {PREEMPTED}' in (tmp_path / "1.json").read_text()
    assert job.result() is None
    assert f'"status": {PREEMPTED}' not in (tmp_path / "1.json").read_text()
    log = job.paths.stderr.read_text()
    assert "Requeued job" in log or "Requeued job" in job.paths.stdout.read_text()
    assert f"Job {job.job_id} is submitted" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads Linux's /proc")
def test_a_job_that_is_cancelled_saves_and_stays_away(submit, ranks, tmp_path):
    job = submit("until_asked", 1)
    ranks.wait_until_ready(1)
    os.kill(task_of(job), signal.SIGTERM)
    wait_for(job.done)
    assert f'"status": {PREEMPTED}' in (tmp_path / "0.json").read_text()
    assert "Requeued job" not in job.paths.stdout.read_text()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads Linux's /proc")
def test_who_waits_for_a_job_and_is_ended_takes_it_back(submit, ranks, tmp_path, sigterm):
    job = submit("until_asked", 1)
    ranks.wait_until_ready(1)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(KeyboardInterrupt):
        slurm.status_of(job, "cluster=local,time=60,wait=yes")
    # It is at its end, so that another one may go on in its folder.
    assert job.done() and f'"status": {PREEMPTED}' in (tmp_path / "0.json").read_text()


@pytest.fixture
def sigterm():
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_mistake_in_a_job_is_one_line_in_its_output(submit, ranks, capsys, sigterm):
    job = submit("mistake", 1)
    job._results_timeout_s = 0.1  # what a network disk may lag behind
    assert slurm.status_of(job, "time=60") == 0
    assert slurm.status_of(job, "time=60,wait=yes") == 1
    assert capsys.readouterr().err == "error: found a hole\n"
    assert "error: found a hole" in job.paths.stderr.read_text()
    assert "Traceback" not in job.paths.stderr.read_text()


def script(text, given, device, output_dir):
    """The sbatch script that submitit writes for these options."""
    submitit = slurm._submitit()
    from submitit.slurm.slurm import _make_sbatch_string

    options = slurm.parse_options(text)
    node = slurm._flags_of_a_node(given, options, device)
    parameters = slurm._parameters(options, node, output_dir)
    executor = submitit.AutoExecutor("folder", cluster="slurm")
    executor.update_parameters(**parameters)
    return node, _make_sbatch_string("RUN", "folder", **executor._executor.parameters)


def test_slurm_is_asked_for_one_task_on_every_node(monkeypatch, tmp_path):
    # submitit asks whether srun is there before it writes a script for it.
    srun = tmp_path / "srun"
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    text = "partition=gpu,nodes=2,gpus=8,time=2-00:30,mem=400,account=me"
    node, lines = script(text, flags(text), "cuda", "output/swav_1x")
    for line in (
        "--partition=gpu",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--cpus-per-task=40",
        "--time=2910",
        "--mem=400GB",
        "--account=me",
        "--job-name=swav_1x",
        "--signal=USR1@180",
    ):
        assert f"#SBATCH {line}\n" in lines
    assert (node.num_machines, node.num_gpus, node.launcher, node.slurm) == (2, 8, "slurm", None)


def test_a_task_knows_its_place(monkeypatch):
    """The environment of the second of two nodes, at the third start of the job."""
    for name, value in {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "123456",
        "SLURM_NODEID": "1",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "gpu[07-08]",
        "SLURM_RESTART_COUNT": "2",
    }.items():
        monkeypatch.setenv(name, value)
    node = flags(None, num_machines=2, launcher="slurm")
    own = slurm.Task(node, print)._own_flags()
    assert (own.machine_rank, own.dist_url) == (1, "tcp://gpu07:23456")
    assert (own.restarts, own.resume) == (2, False)
    assert slurm.Task(node, print, resume=True)._own_flags().resume


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90:30", 91),
        ("24:00:00", 1440),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("0-00:00:01", 1),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it(text, expected):
    # The manual of sbatch, --time: "minutes", "minutes:seconds", "hours:minutes:seconds", "days-hours",
    # "days-hours:minutes" and "days-hours:minutes:seconds".
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("nodes=2", {}, "needs time="),
        ("time=soon", {}, "time=soon: write it as MINUTES"),
        ("time=60,gpu=8", {}, "'gpu=8': write KEY=VALUE,KEY=VALUE with keys among partition"),
        ("time=60,nodes", {}, "'nodes': write KEY=VALUE"),
        ("time=60,time=70", {}, "gives time twice"),
        ("time=60,nodes=0", {}, "nodes=0: must be a whole number from 1 on"),
        ("time=60,gpus=8", {}, "gpus=8 with train.device=cpu"),
        ("time=60", dict(num_machines=2), "--num-machines with --slurm"),
        ("time=60,cluster=moon", {}, "moon"),
        ("time=60,wait=no", {}, "write wait=yes, or leave it out"),
        ("time=60,cluster=local,nodes=2", {}, "LocalExecutor can use only one node"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(tmp_path, text, given, message):
    with pytest.raises(InputError, match=message):
        slurm.submit(flags(text, **given), print, device="cpu", output_dir=str(tmp_path))


def test_two_numbers_of_gpus_are_refused(tmp_path):
    given = flags("time=60,gpus=8", num_gpus=4)
    with pytest.raises(InputError, match="--num-gpus 4 contradicts --slurm gpus=8"):
        slurm.submit(given, print, device="cuda", output_dir=str(tmp_path))


def test_no_slurm_on_this_machine_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match='Could not detect "srun"'):
        slurm.submit(flags("time=60"), print, device="cpu", output_dir=str(tmp_path))
