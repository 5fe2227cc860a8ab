"""What must be the same everywhere: work that one rank does for all, and facts that all ranks must share."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from detectron2.utils import comm

import ssl_backbones

from ...errors import InputError
from ..record import git_output

T = TypeVar("T")

# The others wait for as long as a download or a conversion takes; should the one that works die, its
# connection closes and their waiting ends at once.
_PATIENCE = timedelta(days=7)

# gloo on every device: what travels are small objects, and NCCL would have the waiting occupy the GPUs.
_group: dist.ProcessGroup | None = None


def create_group() -> None:
    """Make the connections on which ranks wait for each other; every process must call it once."""
    global _group
    _group = dist.new_group(backend="gloo", timeout=_PATIENCE)


def on_main_process(work: Callable[[], T]) -> T:
    """Do `work` in rank 0 alone, while the others wait, and return its result in every rank.

    The result must pickle.

    Raises:
        InputError: in rank 0, what `work` raised.
        SystemExit: in the other ranks then, of status 2: rank 0 says what is wrong.
    """
    if comm.get_world_size() == 1:
        return work()
    outcome = [_attempt(work) if comm.is_main_process() else None]
    dist.broadcast_object_list(outcome, src=0, group=_group)
    result, mistake = outcome[0]
    _end_if(mistake)
    return result


def on_each_machine(work: Callable[[], T]) -> T:
    """Do `work` once on every machine, in its first process, and return the result of the own machine.

    For what must be there on a local disk. The results must pickle.

    Raises:
        InputError: in rank 0, what `work` raised anywhere, with the machine's host.
        SystemExit: in the other ranks then, of status 2.
    """
    if comm.get_world_size() == 1:
        return work()
    outcomes = _gather(_attempt(work) if comm.get_local_rank() == 0 else None)
    hosts = _gather(socket.gethostname())
    done = [(outcome, host) for outcome, host in zip(outcomes, hosts, strict=True) if outcome]
    several = len(done) > 1
    mistakes = (
        f"{mistake} (on {host})" if several else mistake for (_, mistake), host in done if mistake
    )
    _end_if(next(mistakes, None))
    own = comm.get_rank() - comm.get_local_rank()
    return outcomes[own][0]


def in_any_rank(flag: bool) -> bool:
    """Whether `flag` is set in any rank; it waits for no GPU's work."""
    if comm.get_world_size() == 1:
        return flag
    flags = torch.tensor([flag], dtype=torch.uint8)
    dist.all_reduce(flags, dist.ReduceOp.MAX, group=_group)
    return bool(flags)


def check_agreement(facts: Mapping[str, str]) -> None:
    """Compare every rank's facts with those of rank 0; no return value, and no news if all agree.

    Args:
        facts: what must be equal by its name in words, such as "config" and the hash of it.

    Raises:
        InputError: in rank 0, naming the first fact in which a rank differs, with both values.
        SystemExit: in the other ranks then, of status 2.
    """
    if comm.get_world_size() == 1:
        return
    cards = _gather((dict(facts), socket.gethostname()))
    _end_if(_disagreement(cards))


def _disagreement(cards: list[tuple[dict[str, str], str]]) -> str | None:
    """The first difference between a rank and rank 0, in words."""
    right, right_host = cards[0]
    for rank, (facts, host) in enumerate(cards):
        for name in {**right, **facts}:
            theirs, ours = facts.get(name), right.get(name)
            if theirs != ours:
                return (
                    f"the ranks disagree on the {name}: {ours} in rank 0 on {right_host}, {theirs} in rank "
                    f"{rank} on {host}; all must run the same"
                )
    return None


def _attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """The result of `work`, or the mistake that it found."""
    try:
        return work(), None
    except InputError as error:
        return None, str(error)


def _end_if(mistake: str | None) -> None:
    """End every rank if there is a mistake; one of them says it."""
    if mistake is None:
        return
    if comm.is_main_process():
        raise InputError(mistake)
    raise SystemExit(2)


def _gather(item: T) -> list[T]:
    items = [None] * comm.get_world_size()
    dist.all_gather_object(items, item, group=_group)
    return items


def code_version() -> str:
    """Version of this package, its git commit where it is a checkout, and a hash of its sources.

    The hash tells edits that are not committed, which two machines may have made differently.
    """
    package = Path(ssl_backbones.__file__).parent
    sources = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        sources.update(f"{file.relative_to(package).as_posix()}\0".encode())
        sources.update(hashlib.sha256(file.read_bytes()).digest())
    commit = _commit(package.parent)
    parts = [ssl_backbones.__version__, *([f"commit {commit:.12}"] if commit else [])]
    return ", ".join([*parts, f"sources {sources.hexdigest()[:12]}"])


def _commit(checkout: Path) -> str:
    """The commit of a checkout; "" without one: a package installed inside another project is not its."""
    if not (checkout / ".git").exists():
        return ""
    return (git_output(checkout, "rev-parse", "HEAD") or b"").decode().strip()
