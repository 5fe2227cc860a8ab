"""Which processes take part in a run: told by flags, by torchrun's environment, or by a Slurm job."""

from __future__ import annotations

import contextlib
import os
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...errors import InputError

# What torchrun tells every worker; other launchers of its kind set the same.
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """Which processes take part: `processes` on each of `machines`; this one is number `machine_rank`.

    Attributes:
        device: "cpu" (gloo) or "cuda" (NCCL).
        dist_url: tcp://HOST:PORT where the machines meet; "auto" on one machine, and under torchrun, which
            has its own meeting point.
        launcher: "spawn" (this command starts the processes), "torchrun" (this process is one of them), or
            "slurm" (as spawn, once on every node of a job).
        local_rank: number of this process on its machine, where it is one of several (torchrun).
        restarts: how often torchrun or Slurm has started this run anew; above 0 it has to be resumed.
    """

    device: str = "cpu"
    processes: int = 1
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    launcher: str = "spawn"
    local_rank: int = 0
    restarts: int = 0

    @property
    def size(self) -> int:
        return self.processes * self.machines

    def rank(self, local_rank: int) -> int:
        """The number among all processes of one of this machine."""
        return self.machine_rank * self.processes + local_rank

    @property
    def speaks(self) -> bool:
        """Whether this command is the one of the run that says its closing words."""
        return self.machine_rank == 0 and self.local_rank == 0


def world(args: Namespace, device: str) -> World:
    """Who takes part, by the flags of tools/train_net.py and by the environment.

    Args:
        args: `num_gpus` and `num_processes` (None where not given; the first counts on GPUs, the second on
            the CPU), `num_machines`, `machine_rank`, `dist_url`; in a Slurm job, `launcher` and `restarts`.
        device: `train.device` of the config.

    Raises:
        InputError: the flags contradict the device, each other or torchrun's environment.
    """
    on_gpu = str(device).startswith("cuda")
    flag, other = ("--num-gpus", "--num-processes") if on_gpu else ("--num-processes", "--num-gpus")
    if _value(args, other) is not None:
        raise InputError(f"{other} with train.device={device}: use {flag}")
    if _under_torchrun():
        return _from_torchrun(args, flag, "cuda" if on_gpu else "cpu", os.environ)
    processes = _value(args, flag)
    processes = 1 if processes is None else processes
    if processes < 1 or args.num_machines < 1:
        raise InputError(f"{flag} and --num-machines count from 1")
    if not 0 <= args.machine_rank < args.num_machines:
        raise InputError(
            f"--machine-rank {args.machine_rank} of --num-machines {args.num_machines}: ranks count from 0"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise InputError(
            "--num-machines needs --dist-url tcp://HOST:PORT, the same on every machine"
        )
    return World(
        "cuda" if on_gpu else "cpu",
        processes,
        args.num_machines,
        args.machine_rank,
        args.dist_url,
        launcher=getattr(args, "launcher", "spawn"),
        restarts=getattr(args, "restarts", 0),
    )


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Under torchrun, let a mistake that all of its workers find be said once on each machine.

    For what comes before `launch`, after which rank 0 speaks for all.
    """
    try:
        yield
    except InputError:
        if not _under_torchrun() or os.environ["LOCAL_RANK"] == "0":
            raise
        # torchrun ends them all as soon as one ends, and that has to be the one that speaks.
        time.sleep(2)
        raise SystemExit(2) from None


def _under_torchrun() -> bool:
    return all(name in os.environ for name in _TORCHRUN)


def _value(args: Namespace, flag: str) -> int | None:
    return getattr(args, flag.removeprefix("--").replace("-", "_"))


def _from_torchrun(args: Namespace, flag: str, device: str, env: Mapping[str, str]) -> World:
    """This worker's place, which torchrun has decided; a flag may only repeat it."""
    try:
        rank, local_rank, size, processes = (int(env[name]) for name in _TORCHRUN[:4])
        restarts = int(env.get("TORCHELASTIC_RESTART_COUNT", 0))
    except ValueError as error:
        raise InputError(f"torchrun's environment is damaged: {error}") from error
    if size % processes:
        raise InputError(
            f"torchrun started {size} processes, {processes} of them here; every machine must start as many"
        )
    machines, machine_rank = size // processes, rank // processes
    given = (
        (flag, _value(args, flag), None, processes),
        ("--num-machines", args.num_machines, 1, machines),
        ("--machine-rank", args.machine_rank, 0, machine_rank),
        ("--dist-url", args.dist_url, "auto", None),
    )
    for name, value, default, right in given:
        if value not in (default, right):
            raise InputError(
                f"{name} {value} contradicts torchrun, which started {processes} processes on each of "
                f"{machines} machines; leave {name} out"
            )
    return World(
        device,
        processes,
        machines,
        machine_rank,
        launcher="torchrun",
        local_rank=local_rank,
        restarts=restarts,
    )
