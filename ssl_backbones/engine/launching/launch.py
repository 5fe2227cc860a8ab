"""Run a function in every process of a world: NCCL on GPUs, gloo on the CPU.

Flags, torchrun and Slurm all come here. What a rank does is the same for all of them; they differ in who
starts it and who watches it. Detectron2 v0.6's own `launch` asserts CUDA, so the CPU could not run several
processes with it. torch's own elastic launcher, tried with 2.14 in place of this one, has a single limit for
saving after SIGTERM and for ending the others after a rank's death, does not tell a machine why another's
rank died and, where machines have their numbers from flags, does not notice that a launcher is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.distributed.rendezvous import rendezvous

from ...compat import create_local_process_group
from ...errors import InputError
from . import agreement
from .failures import (
    PREEMPTED,
    Ending,
    ending_by_exit,
    ending_of,
    leave_at_once,
    report,
    reported,
    show,
)
from .rendezvous import RENDEZVOUS_TIMEOUT, connect, meet, meet_again, spoken
from .watch import Watch, noted_signals
from .world import World

# How long a collective operation may take before the processes that wait in it give up.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)

# What torchrun is given to see that another rank has ended, before this one ends of it too, in seconds.
_PRECEDENCE = 2.0


def launch(
    body: Callable[..., int | None],
    world: World,
    *args,
    rendezvous_timeout: timedelta = RENDEZVOUS_TIMEOUT,
) -> int:
    """Run `body(*args)` in every process of `world` on this machine; returns the exit status.

    `body` must be importable by name, and `args` must pickle. The first rank that ends badly ends all, on
    all machines, within seconds, and one line says which, where and why. The status is 2 after an
    `InputError`, 130 after Ctrl-C, 75 (`PREEMPTED`) where `body` returned it or raised it as `SystemExit`
    after SIGTERM or SIGUSR1, which are passed on to every rank, and 1 after any other failure. A single
    process runs `body` here, and what it raises comes out.

    Args:
        args: a `World` among them arrives with the number of restarts on which all ranks agree.
        rendezvous_timeout: how long processes and machines wait for each other.

    Raises:
        InputError: a machine did not come to the rendezvous, or there are too few GPUs.
    """
    _check_gpus(world)
    if world.size == 1:
        return body(*args) or 0
    if world.launcher == "torchrun":
        return _be_a_rank(body, world, args, rendezvous_timeout)
    return _start_ranks(body, world, args, rendezvous_timeout)


def _check_gpus(world: World) -> None:
    if world.device != "cuda":
        return
    if not torch.cuda.is_available():
        raise InputError(
            "train.device is cuda and this machine has no usable GPU; add train.device=cpu to run on the CPU"
        )
    if world.processes > torch.cuda.device_count():
        raise InputError(
            f"--num-gpus {world.processes}: this machine has {torch.cuda.device_count()}; lower it"
        )


# ---- in the launcher


def _start_ranks(body, world: World, args: tuple, timeout: timedelta) -> int:
    """What a command does whose processes do not exist yet: meet the other machines, start, watch."""
    store = meet(world, timeout)
    with noted_signals() as arrived:
        context = mp.start_processes(
            _rank_process,
            nprocs=world.processes,
            args=(os.getpid(), body, world, (store.host, store.port), args, timeout),
            join=False,
            start_method="spawn",
        )
        watch = Watch(context.processes, world, store, arrived)
        try:
            return watch.until_the_end()
        except KeyboardInterrupt:
            watch.tell_of_interruption()
            raise
        finally:
            watch.end_all()


# ---- in every rank


def _rank_process(
    local_rank: int, parent: int, body, world: World, address, args: tuple, timeout: timedelta
) -> None:
    # torch sends SIGINT to a process whose parent died. Python would only look at it after a call into
    # gloo or NCCL has returned, which may be never.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getppid() != parent:
        # It died before torch could ask for that signal.
        os._exit(1)
    rank = world.rank(local_rank)
    store = connect(*address)
    outcome = _run_rank(body, world, args, rank, local_rank, store, timeout)
    # How it ended says the launcher, once for all of them. And not by way of Python's finalisation, in which
    # threads of torch have been seen to abort a process that was done.
    leave_at_once(outcome.status if isinstance(outcome, Ending) else outcome)


def _be_a_rank(body, world: World, args: tuple, timeout: timedelta) -> NoReturn:
    """What torchrun started: it watches its workers, and they say themselves how they end."""
    rank = world.rank(world.local_rank)
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        shared, _, _ = next(rendezvous("env://", timeout=timeout))
        store, restarts = meet_again(shared, rank, world, timeout)
    except dist.DistError as error:
        raise InputError(
            f"rank {rank} did not meet the others at {address} within {spoken(timeout)}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    args = tuple(replace(a, restarts=restarts) if isinstance(a, World) else a for a in args)
    outcome = _run_rank(body, world, args, rank, world.local_rank, store, timeout)
    if not isinstance(outcome, Ending):
        leave_at_once(outcome)
    if outcome.follows:
        # torchrun takes the first to leave for the cause, and ends the others by itself.
        time.sleep(_PRECEDENCE)
    if not outcome.follows or not _another_said_it(store):
        show(outcome, world.size, with_traceback=not outcome.follows)
    leave_at_once(outcome.status)


def _another_said_it(store: dist.Store) -> bool:
    """Whether a rank has told of an ending by itself, or of one for which rank 0 speaks."""
    with contextlib.suppress(dist.DistError):
        return any(not ending.follows or ending.status == 2 for ending in reported(store))
    return False


def _run_rank(
    body, world: World, args: tuple, rank: int, local_rank: int, store: dist.Store, timeout
) -> int | Ending:
    """Join the process group and run the body: its status, or how it ended."""
    try:
        _join(world, rank, local_rank, store, timeout)
        status = body(*args) or 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        ending = ending_of(error, rank)
        _tell(store, ending, error)
        return ending
    if status not in (0, PREEMPTED):
        ending = ending_by_exit(rank, status, ())
        _tell(store, ending)
        return ending
    dist.destroy_process_group()
    return status


def _tell(store: dist.Store, ending: Ending, error: BaseException | None = None) -> None:
    try:
        report(store, ending)
    except dist.DistError:
        # The store went with its machine, and this may be the only one to say anything.
        print(ending.told or ending.cause, file=sys.stderr)
    if os.environ.get("TORCHELASTIC_ERROR_FILE") and ending.told and not ending.follows:
        # torchrun shows what it finds there beside the worker that failed first.
        get_error_handler().record_exception(error)


def _join(world: World, rank: int, local_rank: int, store: dist.Store, timeout: timedelta) -> None:
    if world.device == "cuda":
        torch.cuda.set_device(local_rank)
    else:
        # Share the cores instead of starting as many threads as cores in every process.
        torch.set_num_threads(max(1, torch.get_num_threads() // world.processes))
    with _deadline(world, rank, store, timeout):
        dist.init_process_group(
            backend="nccl" if world.device == "cuda" else "gloo",
            store=dist.PrefixStore("group", store),
            world_size=world.size,
            rank=rank,
            timeout=COLLECTIVE_TIMEOUT,
        )
        create_local_process_group(world.processes)
        agreement.create_group()
        comm.synchronize()


@contextlib.contextmanager
def _deadline(world: World, rank: int, store: dist.Store, timeout: timedelta) -> Iterator[None]:
    """End this process if the body, which connects all with all and cannot be stopped, takes too long."""
    store.set(f"rank/{rank}", "here")
    # A connection serves one question at a time, and the body may be waiting for its answer.
    own = store.clone()

    def give_up() -> None:
        missing = [str(r) for r in range(world.size) if not own.check([f"rank/{r}"])]
        error = InputError(
            f"rank {', '.join(missing)} of {world.size} did not come within {spoken(timeout)}"
            if missing
            else f"all {world.size} ranks came but could not connect within {spoken(timeout)}; open the "
            "firewall between the machines, or set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to their network"
        )
        ending = ending_of(error, rank)
        _tell(own, ending)
        if world.launcher == "torchrun":
            show(ending, world.size, with_traceback=False)
        leave_at_once(ending.status)

    timer = threading.Timer(timeout.total_seconds(), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
