"""Real runs of the trainer in processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import time
from argparse import Namespace
from pathlib import Path

TINY = str(Path(__file__).parent / "tiny.py")

# Of a line of metrics.json: what a clock or the memory of the process says.
MEASURED = ("time", "data_time", "data_wait", "images_per_second", "memory", "eta_seconds")


def _kernels() -> list[str]:
    """The modules of compiled code, which import numba."""
    package = Path(__file__).parent.parent / "ssl_backbones"
    files = package.rglob("*_kernels.py")
    return [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files]


class Runs:
    """Starts runs and waits for them.

    multiprocessing's fork server imports the trainer once; each run is a fork of it, so that it costs a
    fraction of a second to start and can be killed like any process.
    """

    def __init__(self):
        # One thread: a fork does not have its parent's others.
        os.environ["OMP_NUM_THREADS"] = "1"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["running", "ssl_backbones.engine.run", "torch.utils.tensorboard", *_kernels()]
        )

    def start(
        self, folder: Path, *overrides: str, processes: int = 1, fault=None, unlike=None, **flags
    ) -> list:
        """Start the tiny run in `folder`; returns its processes, by rank.

        Args:
            fault: `(function, *arguments)`, called in each process before the run begins; it must be
                importable.
            unlike: `(rank, override)`, which only that process gets.
            flags: those of tools/train_net.py: `resume`, `eval_only`, ...
        """
        words = [f"train.output_dir={folder}", *overrides]
        port = free_port()
        children = []
        for rank in range(processes):
            environment = _as_torchrun(rank, processes, port) if processes > 1 else {}
            own = [*words, unlike[1]] if unlike and unlike[0] == rank else words
            arguments = (flags, own, environment, fault, _out(folder, rank))
            child = self._context.Process(target=_run, args=arguments)
            child.start()
            children.append(child)
        return children

    def run(self, folder: Path, *overrides: str, **options) -> list[int]:
        """Run to the end; returns the exit status of each process, negative for a signal."""
        return wait(self.start(folder, *overrides, **options))


def wait(children: list, timeout: float = 120) -> list[int]:
    """The exit status of each process; one that hangs is killed and fails the test."""
    for child in children:
        child.join(timeout)
    hanging = [child for child in children if child.exitcode is None]
    for child in hanging:
        child.kill()
        child.join()
    assert not hanging, f"{len(hanging)} of {len(children)} processes did not end"
    return [child.exitcode for child in children]


def output(folder: Path, rank: int = 0) -> str:
    """What the last run in `folder` printed."""
    return _out(folder, rank).read_text()


def _out(folder: Path, rank: int) -> Path:
    """Beside the run folder, or beside the disk that it is on."""
    folder = Path(folder)
    while os.path.ismount(folder.parent):
        folder = folder.parent
    return folder.with_name(f"{folder.name}.{rank}.out")


def metrics(folder: Path) -> list[dict]:
    """The lines of metrics.json, without what is measured."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def checkpoint(folder: Path, name: str = "model_final") -> dict:
    import torch

    return torch.load(Path(folder) / f"{name}.pth", weights_only=True)


def difference(one, two, where: str = "checkpoint") -> str | None:
    """The first place in which two nested objects differ, in the last bit of a tensor too; None if none."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same = one.dtype == two.dtype and torch.equal(one, two)
        return None if same else f"{where}: tensors differ"
    if isinstance(one, dict) and isinstance(two, dict):
        keys, others = ([k for k in d if k not in MEASURED] for d in (one, two))
        if keys != others:
            return f"{where}: keys {sorted(map(str, set(keys) ^ set(others)))}"
        pairs = [(one[key], two[key], f"{where}.{key}") for key in keys]
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = [(a, b, f"{where}[{n}]") for n, (a, b) in enumerate(zip(one, two, strict=True))]
    else:
        return None if type(one) is type(two) and one == two else f"{where}: {one!r} and {two!r}"
    return next(filter(None, (difference(*pair) for pair in pairs)), None)


def torchrun(*flags: str) -> tuple[str, ...]:
    """The beginning of a command that starts two workers here."""
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return (sys.executable, *words, *flags)


def wait_for(condition, seconds: float = 120):
    """What `condition` returns once it is true; it is asked often enough to come between two iterations."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return result


def children(pid: int) -> list[int]:
    """The processes that one has started, in that order; Linux alone tells."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _as_torchrun(rank: int, processes: int, port: int) -> dict[str, str]:
    """The environment that torchrun gives a worker."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _run(flags: dict, words: list[str], environment: dict, fault, out: Path) -> None:
    """In the child: the run, its exit status the child's."""
    from ssl_backbones.engine.run import run
    from ssl_backbones.errors import run_command

    os.environ.update(environment)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if fault:
        function, *arguments = fault
        function(*arguments)
    given = {
        "config_file": TINY,
        "opts": words,
        "num_gpus": None,
        "num_processes": None,
        "num_machines": 1,
        "machine_rank": 0,
        "dist_url": "auto",
        "resume": False,
        "eval_only": False,
        "dry_run": False,
        "slurm": None,
        "data": None,
        "classes": None,
        "init": None,
        "val_share": None,
        "epochs": None,
    }
    status = run_command(lambda: run(Namespace(**{**given, **flags})))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


# ---- faults: called in the run's process before it begins


def signal_at(
    place: str,
    call: int,
    number: int = signal.SIGKILL,
    after: bool = False,
    of: str = "",
    rank: int | None = None,
) -> None:
    """Have this process send itself a signal when a function is called, or has done its work.

    Args:
        place: "module:name" or "module:Class.name".
        call: the how-manieth call, from 1.
        after: when it returns, not when it is called.
        of: only calls count whose arguments, printed, contain this.
        rank: in this process only.
    """
    if rank is not None and os.environ.get("RANK", "0") != str(rank):
        return
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += not of or of in repr(args)
        due = calls == call and (not of or of in repr(args))
        if due and not after:
            os.kill(os.getpid(), number)
        result = original(*args, **kwargs)
        if due and after:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, wrapped)


def no_waiting() -> None:
    """Try a failed checkpoint again at once, for tests in which it fails for good."""
    from ssl_backbones.engine.hooks import saving

    saving.RETRIES = (0.0,)


def fail_once(error: int) -> None:
    """Have the first rename of a checkpoint fail, as a network file system's may."""
    original, failed = os.replace, False

    def replace(source, target, **kwargs):
        nonlocal failed
        if str(target).endswith(".pth") and not failed:
            failed = True
            raise OSError(error, os.strerror(error))
        return original(source, target, **kwargs)

    os.replace = replace
    no_waiting()


def limit_file_size(size: int) -> None:
    """No file may grow beyond `size` bytes: the write fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    no_waiting()


def remove_at(iteration: int, folder: str) -> None:
    """Remove a folder while the run is in an iteration."""
    from ssl_backbones.engine.trainer import Trainer

    original = Trainer.run_step

    def run_step(self):
        if self.iter == iteration:
            shutil.rmtree(folder)
        original(self)

    Trainer.run_step = run_step
    no_waiting()


def spoil_image(name: str) -> None:
    """Have every pixel of one training image be NaN, as a broken augmentation would."""
    from ssl_backbones.fast.mapping.mapper import FastDatasetMapper

    original = FastDatasetMapper.__call__

    def mapped(self, record):
        image = original(self, record)
        if self.is_train and name in image["file_name"]:
            image["image"] = image["image"].float() * float("nan")
        return image

    FastDatasetMapper.__call__ = mapped


def moved_in_a_run_and_its_resumption(train, folder: Path, converted: Path) -> set[str]:
    """Which of a converted file's tensors a run moved, which ends in the same bits if killed and resumed.

    Args:
        train: `train(folder, *words)` runs tools/train_net.py, with a checkpoint after each iteration.
    """
    import numpy as np
    import torch

    from ssl_backbones.conversion.reading import read_checkpoint

    whole, again = folder / "whole", folder / "again"
    assert "Metrics: " in train(whole).stdout
    assert json.loads((whole / "inference/metrics.json").read_text())
    # The same run, killed after its first iteration.
    shutil.copytree(whole, again)
    for file in ("model_final.pth", "model_0000001.pth"):
        (again / file).unlink(missing_ok=True)
    (again / "last_checkpoint").write_text("model_0000000.pth")
    train(again, "--resume")
    end, other = (
        torch.load(one / "model_final.pth", weights_only=False)["model"] for one in (whole, again)
    )
    assert difference(end, other) is None
    return {
        name
        for name, value in read_checkpoint(converted).content["model"].items()
        if not np.array_equal(value, end[f"backbone.bottom_up.{name}"].numpy())
    }
