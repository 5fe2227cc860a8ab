"""A run as a Slurm job, through submitit: one task on every node, which launches as a machine of the world.

A job that Slurm takes away (preemption, end of its time) first writes a checkpoint and then puts itself
back into the queue, to be resumed.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError, run_command
from .failures import PREEMPTED

if TYPE_CHECKING:
    import submitit

_KEYS = {
    "partition": "where to run",
    "nodes": "how many (default 1)",
    "gpus": "per node (default --num-gpus)",
    "cpus": "per node (default 5 for each GPU)",
    "mem": "GB per node (default the cluster's)",
    "time": "MINUTES, [HOURS:]MINUTES:SECONDS or DAYS-HOURS[:MINUTES[:SECONDS]], as sbatch reads it",
    "folder": "where job files and logs go (default slurm/ in the run folder)",
    "name": "of the job (default the run folder's)",
    "account": "to charge",
    "qos": "quality of service",
    "constraint": "on nodes",
    "cluster": "slurm, or local: a process on this machine",
    "wait": "yes: the command ends with the job and its status, and takes it back when it is ended itself",
}

# A loader's four workers, as in Detectron2's configs, and the rank itself. One core for all of a node's
# processes, which is what Slurm gives a task that does not ask, would starve the GPUs in silence.
_CPUS_PER_GPU = 5

# The signal with which submitit is told that a job is about to be taken away. The trainer knows it, and so
# it may reach every process of the job, as Slurm sends it.
_SIGNAL = signal.SIGUSR1

# Seconds between that signal and the end: time for an iteration and a checkpoint.
_NOTICE = 180

# How often a job may run out of its time and be put back. A run of weeks on a queue of hours needs many.
_REQUEUES = 1000


def parse_options(text: str) -> dict[str, str]:
    """The words of --slurm KEY=VALUE,KEY=VALUE.

    Raises:
        InputError: a key is unknown or given twice, or has no value.
    """
    options: dict[str, str] = {}
    for word in text.split(","):
        key, _, value = word.partition("=")
        if key not in _KEYS or not value:
            known = ", ".join(_KEYS)
            raise InputError(f"--slurm {word!r}: write KEY=VALUE,KEY=VALUE with keys among {known}")
        if key in options:
            raise InputError(f"--slurm gives {key} twice")
        options[key] = value
    if options.get("wait", "yes") != "yes":
        raise InputError(f"--slurm wait={options['wait']}: write wait=yes, or leave it out")
    if "time" not in options:
        # submitit would ask for five minutes.
        raise InputError(f"--slurm needs time=TIME: {_KEYS['time']}")
    return options


def waiting(text: str) -> str:
    """The words of --slurm for a command that waits for its job.

    Raises:
        InputError: a job could not be asked for by them; or submitit is not installed.
    """
    options = parse_options(text)
    minutes(options["time"])
    if options.get("cluster", "slurm") not in ("slurm", "local"):
        raise InputError(f"--slurm cluster={options['cluster']}: there are slurm and local")
    _submitit()
    return text if "wait" in options else f"{text},wait=yes"


def minutes(time: str) -> int:
    """Slurm's notations of a duration in minutes, rounded up.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        raise InputError(f"--slurm time={time}: write it as {_KEYS['time']}")
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:
        # DAYS-HOURS[:MINUTES[:SECONDS]]
        hours, mins, secs = [*parts, 0, 0][:3]
    else:
        # MINUTES, MINUTES:SECONDS or HOURS:MINUTES:SECONDS
        hours, mins, secs = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return (int(days or 0) * 24 + hours) * 60 + mins + (secs + 59) // 60


def submit(
    args: Namespace, body: Callable[[Namespace], int], *, device: str, output_dir: str
) -> submitit.Job:
    """Submit `body(args)` as a job, and say where its output will be.

    Args:
        args: `slurm`, the text of --slurm, and the other flags, which the job takes over.
        body: what every node runs; importable by name.
        device: `train.device` of the config.
        output_dir: the run folder.

    Raises:
        InputError: the options do not fit, submitit is not installed, or the cluster refuses the job.
    """
    submitit = _submitit()
    options = parse_options(args.slurm)
    flags = _flags_of_a_node(args, options, device)
    parameters = _parameters(options, flags, output_dir)
    folder = Path(options.get("folder") or os.path.join(output_dir, "slurm"))
    try:
        executor = submitit.AutoExecutor(
            folder=folder,
            cluster=options.get("cluster", "slurm"),
            slurm_max_num_timeout=_REQUEUES,
            local_max_num_timeout=_REQUEUES,
        )
        executor.update_parameters(**parameters)
        job = executor.submit(Task(flags, body))
    except (ValueError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        # submitit passes on what sbatch says, in several lines.
        raise InputError(f"--slurm {args.slurm}: {' '.join(str(error).split())}") from error
    print(
        f"Job {job.job_id} is submitted.\nIts output: {job.paths.stdout} and {job.paths.stderr}\n"
        f"The run folder: {os.path.abspath(output_dir)}\nTo stop it: {_cancellation(options, job)}",
        flush=True,
    )
    return job


def status_of(job: submitit.Job, text: str) -> int:
    """0 of a job that is submitted; with wait=yes among the options, its own when it has ended.

    Who is asked to end meanwhile takes the job back first, and waits until it has saved.
    """
    options = parse_options(text)
    if "wait" not in options:
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        job.wait()
    except KeyboardInterrupt:
        if options.get("cluster") == "local":
            # submitit would interrupt what passes signals on, and leave the run.
            os.kill(int(job.job_id), signal.SIGTERM)
        else:
            job.cancel(check=False)
        # So that nobody goes on in the run folder while the job still saves.
        job.wait()
        raise
    if job.exception() is None:
        return 0
    lines = [line for line in (job.stderr() or "").splitlines() if line.strip()]
    print(lines[-1] if lines else f"error: job {job.job_id} failed", file=sys.stderr)
    return 1


def _submitit():
    """The package, told which signal to use: it reads that at its import, here and then in the job.

    Raises:
        InputError: it is not installed.
    """
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = _SIGNAL.name.removeprefix("SIG")
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise InputError(
            "--slurm needs submitit: pip install 'ssl-backbones[slurm]' brings it"
        ) from error
    return submitit


def _cancellation(options: dict[str, str], job: submitit.Job) -> str:
    is_local = options.get("cluster") == "local"
    return f"kill {job.job_id}" if is_local else f"scancel {job.job_id}"


def _flags_of_a_node(args: Namespace, options: dict[str, str], device: str) -> Namespace:
    """The flags with which every node launches, but for its number."""
    given = [
        flag
        for flag, value, default in (
            ("--num-machines", args.num_machines, 1),
            ("--machine-rank", args.machine_rank, 0),
            ("--dist-url", args.dist_url, "auto"),
        )
        if value != default
    ]
    if given:
        raise InputError(f"{given[0]} with --slurm: the job tells its nodes; write nodes=N instead")
    flags = copy.copy(args)
    flags.slurm = None
    flags.launcher = "slurm"
    flags.num_machines = _number(options, "nodes", 1)
    if not str(device).startswith("cuda"):
        if options.get("gpus", "0") != "0":
            raise InputError(f"--slurm gpus={options['gpus']} with train.device={device}")
        return flags
    gpus = _number(options, "gpus", args.num_gpus or 1)
    if args.num_gpus not in (None, gpus):
        raise InputError(f"--num-gpus {args.num_gpus} contradicts --slurm gpus={gpus}")
    flags.num_gpus = gpus
    return flags


def _number(options: dict[str, str], key: str, default: int | None) -> int | None:
    text = options.get(key)
    if text is None:
        return default
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--slurm {key}={text}: must be a whole number from 1 on")
    return int(text)


def _parameters(options: dict[str, str], flags: Namespace, output_dir: str) -> dict:
    """What submitit asks the cluster for."""
    gpus = getattr(flags, "num_gpus", None) or 0
    parameters = {
        "name": options.get("name", Path(output_dir).name or "run"),
        "nodes": flags.num_machines,
        "tasks_per_node": 1,
        "gpus_per_node": gpus,
        "cpus_per_task": _number(options, "cpus", _CPUS_PER_GPU * gpus or None),
        "mem_gb": _number(options, "mem", None),
        "timeout_min": minutes(options["time"]),
        "slurm_signal_delay_s": _NOTICE,
    }
    for key in ("partition", "account", "qos", "constraint"):
        parameters[f"slurm_{key}"] = options.get(key)
    return {key: value for key, value in parameters.items() if value is not None}


@dataclass
class Task:
    """What one node of the job does; submitit calls it, and `checkpoint` when it puts the job back."""

    flags: Namespace
    body: Callable[[Namespace], int]
    resume: bool = False

    def __call__(self) -> None:
        """Run; where Slurm takes the job away, let the run write its checkpoint, then put the job back.

        SIGTERM alone is somebody's scancel, or a preemption after which Slurm itself puts the job back: it
        ends with a checkpoint and status 75.

        Raises:
            SystemExit: with the run's status, if it is not 0.
        """
        put_back = signal.getsignal(_SIGNAL)
        for number in (_SIGNAL, signal.SIGTERM):
            # Until the launcher or the trainer listens there is nothing to save.
            signal.signal(number, _stop)
        with _arriving_signals() as arrived:
            status = run_command(lambda: _status_of(lambda: self.body(self._own_flags())))
        if status == PREEMPTED and _SIGNAL in arrived:
            signal.signal(_SIGNAL, put_back)
            signal.raise_signal(_SIGNAL)
        elif status:
            sys.exit(status)

    def checkpoint(self):
        """The job as it goes back into the queue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Task(self.flags, self.body, resume=True))

    def _own_flags(self) -> Namespace:
        from submitit import JobEnvironment

        job = JobEnvironment()
        flags = copy.copy(self.flags)
        flags.machine_rank = job.node
        if flags.num_machines > 1:
            # A port for each job, since two may share a node.
            port = 20000 + int(job.raw_job_id) % 20000
            flags.dist_url = f"tcp://{job.hostnames[0]}:{port}"
        # Slurm counts how often it has put the job back by itself, after the failure of a node.
        flags.restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        flags.resume = flags.resume or self.resume
        return flags


@contextlib.contextmanager
def _arriving_signals() -> Iterator[set[int]]:
    """The signals that arrive while the body runs, whoever handles them; complete at its end."""
    arrived: set[int] = set()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield arrived
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            arrived.update(pipe.read())


def _stop(number: int, frame) -> None:
    raise SystemExit(PREEMPTED)


def _status_of(body: Callable[[], int]) -> int:
    try:
        return body()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
