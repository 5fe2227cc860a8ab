"""Where the launchers of a run meet: a small key-value store that outlives every training process.

The launcher of machine 0 keeps it, so that it is still there to ask when a rank, be it rank 0, is gone.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

import torch.distributed as dist

from ...errors import InputError
from .world import World

# How long machines wait for each other, and processes for each other, before they give up. Clusters start
# the nodes of one job minutes apart.
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)

# How long one question to the store may take.
_ANSWER_TIMEOUT = timedelta(seconds=60)

# How often a launcher looks around, in seconds.
POLL = 0.2


def meet(world: World, timeout: timedelta) -> dist.TCPStore:
    """Meet the launchers of the other machines; returns the store, which machine 0 keeps while it holds it.

    Raises:
        InputError: a machine did not come in time, has other flags, or took this one's number.
    """
    store = _open(world, timeout)
    if world.machines > 1:
        _wait_for_machines(store, world, timeout)
    return store


def connect(host: str, port: int) -> dist.TCPStore:
    """Another connection to the store; each process, and each thread, needs its own."""
    return dist.TCPStore(
        host, port, is_master=False, wait_for_workers=False, timeout=_ANSWER_TIMEOUT
    )


def _open(world: World, timeout: timedelta) -> dist.TCPStore:
    if world.dist_url == "auto":
        # Port 0: the system chooses a free one, and nobody can take it in between.
        return _listen(0)
    try:
        url = urlsplit(world.dist_url)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise InputError(f"--dist-url {world.dist_url}: {error}; write tcp://HOST:PORT") from error
    if url.scheme != "tcp" or not host or not port:
        raise InputError(f"--dist-url {world.dist_url} is not of the form tcp://HOST:PORT")
    if world.machine_rank == 0:
        try:
            return _listen(port)
        except dist.DistError as error:
            raise InputError(
                f"machine 0 cannot listen on port {port} ({_reason(error)}); give --dist-url a port that no "
                "other run holds"
            ) from error
    _wait_for_listener(world, host, port, timeout)
    try:
        return connect(host, port)
    except dist.DistError as error:
        raise InputError(
            f"{world.dist_url} does not answer as a launcher does: {_reason(error)}"
        ) from error


def _listen(port: int) -> dist.TCPStore:
    """A store that listens on every address of this machine, which itself comes by the shortest way."""
    return dist.TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=_ANSWER_TIMEOUT
    )


def _reason(error: dist.DistError) -> str:
    """The system's word for it, of the paragraph that torch makes."""
    first = str(error).splitlines()[0]
    return first.rpartition("message: ")[2].rstrip(".")


def _wait_for_listener(world: World, host: str, port: int, timeout: timedelta) -> None:
    """Knock until machine 0 listens; in Python, since Ctrl-C does not reach a TCPStore that connects."""
    reason = ""

    def listens() -> bool:
        nonlocal reason
        try:
            socket.create_connection((host, port), timeout=5).close()
            return True
        except OSError as error:
            reason = error.strerror or str(error)
            return False

    if not _wait(listens, timeout):
        raise InputError(
            f"machine {world.machine_rank} found nobody at {world.dist_url} within {spoken(timeout)} "
            f"({reason}): machine 0 has not come, or its address or port is not reachable from "
            f"{socket.gethostname()}"
        )


def _wait_for_machines(store: dist.Store, world: World, timeout: timedelta) -> None:
    """Tell the others that this machine is there and wait until all are.

    Raises:
        InputError: naming who is missing, or the machines that disagree.
    """
    mine, host = world.machine_rank, socket.gethostname()
    if store.add(f"claims/{mine}", 1) > 1:
        store.add(f"claims/{mine}", -1)
        raise InputError(
            f"--machine-rank {mine} is taken by another machine of this run; give each its own number"
        )
    card = {"host": host, "processes": world.processes, "machines": world.machines}
    store.set(f"machine/{mine}", json.dumps(card))
    try:
        if _wait(lambda: _all_there(store, card, world), timeout):
            return
        missing = [str(n) for n in range(world.machines) if not store.check([f"machine/{n}"])]
        _withdraw(store, mine)
    except KeyboardInterrupt:
        _withdraw(store, mine)
        raise
    except dist.DistError as error:
        raise InputError(
            f"machine 0 at {world.dist_url} left before all machines had come; see what it says"
        ) from error
    raise InputError(
        f"machine {', '.join(missing)} of {world.machines} did not come to {world.dist_url} within "
        f"{spoken(timeout)}; start it with the same flags and its own --machine-rank"
    )


def _withdraw(store: dist.Store, machine: int) -> None:
    """Whoever starts this machine again, while the others wait, shall find its number free."""
    with contextlib.suppress(dist.DistError):
        store.delete_key(f"machine/{machine}")
        store.add(f"claims/{machine}", -1)


def _all_there(store: dist.Store, card: dict, world: World) -> bool:
    """Whether every machine has come.

    Raises:
        InputError: one that has come was started otherwise than this one.
    """
    present = [n for n in range(world.machines) if store.check([f"machine/{n}"])]
    for number in present:
        other = json.loads(store.get(f"machine/{number}"))
        for name in ("machines", "processes"):
            if other[name] != card[name]:
                raise InputError(
                    f"machine {number} ({other['host']}) was started with {name}={other[name]} and machine "
                    f"{world.machine_rank} ({card['host']}) with {name}={card[name]}; start all alike"
                )
    return len(present) == world.machines


def meet_again(
    shared: dist.Store, rank: int, world: World, timeout: timedelta
) -> tuple[dist.Store, int]:
    """Among the ranks of this start of a run, a part of the store that no earlier start has used.

    torchrun keeps its store when it starts the workers anew, with all that they had written, and not every
    machine counts that as a restart. So each rank brings a word of its own, and rank 0 names the part of the
    store for those whose words it has; a word of an earlier start is not there to acknowledge it.

    Returns:
        The store, and how often the run was started before.

    Raises:
        InputError: a rank did not come in time.
    """
    word = uuid.uuid4().hex
    shared.set(f"word/{rank}", json.dumps([word, world.restarts]))
    keys = [f"word/{r}" for r in range(world.size)]
    # Rank 0 alone knows a new start for what it is.
    part, before = uuid.uuid4().hex, shared.add("starts", 1) - 1 if rank == 0 else 0

    def named() -> dict | None:
        """What rank 0 said to those who are here now, this rank among them."""
        if rank == 0 and shared.check(keys):
            cards = [json.loads(shared.get(key)) for key in keys]
            words, counts = zip(*cards, strict=True)
            said = {"part": part, "words": words, "restarts": max(before, *counts)}
            shared.set("start", json.dumps(said))
        if not shared.check(["start"]):
            return None
        said = json.loads(shared.get("start"))
        # The number of ranks may have been another one.
        is_mine = rank < len(said["words"]) and said["words"][rank] == word
        return said if is_mine else None

    def all_here() -> bool:
        said = named()
        if said is None:
            return False
        shared.set(f"{said['part']}/here/{rank}", word)
        return shared.check([f"{said['part']}/here/{r}" for r in range(world.size)])

    if not _wait(all_here, timeout):
        missing = [r for r in range(world.size) if not shared.check([f"{part}/here/{r}"])]
        who = ", ".join(map(str, missing)) if rank == 0 else "another"
        raise InputError(
            f"rank {who} of {world.size} did not come within {spoken(timeout)} (rank {rank} waited)"
        )
    said = named()
    return dist.PrefixStore(said["part"], shared), said["restarts"]


def _wait(condition: Callable[[], bool], timeout: timedelta) -> bool:
    deadline = time.monotonic() + timeout.total_seconds()
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def spoken(duration: timedelta) -> str:
    """A duration as a message says it."""
    return f"{duration.total_seconds():g} s"
