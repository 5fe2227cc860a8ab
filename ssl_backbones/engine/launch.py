"""One process, or several on one or many machines: NCCL on GPUs, gloo on the CPU.

Detectron2 v0.6's own `launch` asserts CUDA, so the CPU could not run several processes with it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from ..compat import create_local_process_group
from ..errors import InputError, run_command

# How long a process waits for the others to appear, and for a collective operation, before it gives up.
TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """Which processes take part: `processes` on each of `machines`; this one is number `machine_rank`."""

    device: str = "cpu"
    processes: int = 1
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    @property
    def size(self) -> int:
        return self.processes * self.machines


def launch(body: Callable[..., int | None], world: World, *args) -> int:
    """Run `body(*args)` in every process of `world` on this machine; returns the exit status.

    An `InputError` in a process is one line on standard error and status 2, as everywhere; the others then
    fail of the lost connection, which is no news and not shown.
    """
    if world.size == 1:
        return body(*args) or 0
    url = f"tcp://127.0.0.1:{_free_port()}" if world.dist_url == "auto" else world.dist_url
    context = mp.start_processes(
        _process,
        nprocs=world.processes,
        args=(os.getpid(), body, world, url, args),
        join=False,
        start_method="spawn",
    )
    try:
        while not context.join():
            pass
    except (mp.ProcessRaisedException, mp.ProcessExitedException):
        statuses = [process.exitcode for process in context.processes]
        told = next((status for status in statuses if status in (2, 130)), None)
        if told is None:
            raise
        return told
    return 0


def _process(local_rank: int, parent: int, body, world: World, url: str, args: tuple) -> None:
    # torch sends SIGINT to a process whose parent died. Python would only look at it after a call into
    # gloo or NCCL has returned, which may be never.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getppid() != parent:
        # It died before torch could ask for that signal.
        os._exit(1)
    status = run_command(lambda: _join_and_run(local_rank, body, world, url, args))
    if status:
        # At once: the connections close with the process and not before, so that by the time the others
        # fail of it this status can be seen.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _join_and_run(local_rank: int, body, world: World, url: str, args: tuple) -> int | None:
    if world.device == "cuda":
        torch.cuda.set_device(local_rank)
    else:
        # Share the cores instead of starting as many threads as cores in every process.
        torch.set_num_threads(max(1, torch.get_num_threads() // world.processes))
    rank = world.machine_rank * world.processes + local_rank
    try:
        dist.init_process_group(
            backend="nccl" if world.device == "cuda" else "gloo",
            init_method=url,
            world_size=world.size,
            rank=rank,
            timeout=TIMEOUT,
        )
    except (RuntimeError, ValueError, dist.DistError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"rank {rank} found no process group at {url}: {reason}; check --dist-url, "
            "--num-machines and --machine-rank"
        ) from error
    create_local_process_group(world.processes)
    comm.synchronize()
    status = body(*args)
    dist.destroy_process_group()
    return status


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
