"""How a rank ended, told to all: of many processes that fall over each other, the one that fell first."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NoReturn

import torch.distributed as dist

from ...errors import InputError, run_command

# Exit status of a run that was told to stop, wrote a checkpoint and can be resumed; sysexits.h calls 75 a
# temporary failure: try again.
PREEMPTED = 75

# Words with which gloo, NCCL and the store complain that another process is gone.
_LOST = ("gloo", "NCCL", "TCPStore", "onnection closed", "onnection reset", "roken pipe")


@dataclass(frozen=True)
class Ending:
    """How one rank ended before its time.

    Attributes:
        status: the exit status that the whole command takes from it.
        cause: one line.
        told: the traceback; "" for a mistake of the user and for a process that could not say anything.
        follows: it ended because another had ended: no news beside the other's ending.
    """

    rank: int
    host: str
    status: int
    cause: str
    told: str = ""
    follows: bool = False

    def message(self, size: int) -> str:
        """The one line for a terminal: which rank of `size`, where and why."""
        if self.status == 2:
            return f"error: {self.cause} (rank {self.rank} on {self.host})"
        return f"error: rank {self.rank} of {size} on {self.host}: {self.cause}"


def ending_of(error: BaseException, rank: int) -> Ending:
    """What an exception that came out of a rank means; the rules are those of every command."""
    host = socket.gethostname()
    told, place = "".join(traceback.format_exception(error)), error.__traceback__
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            status = run_command(lambda: _raise(error))
        cause = said.getvalue().strip().removeprefix("error: ")
        # Status 0 stands for output that nobody reads any more: here it ends a whole run.
        return Ending(rank, host, status or 1, cause or "its output was closed")
    except BaseException:
        cause = " ".join(traceback.format_exception_only(error)[-1].split())
        lost = _is_lost_connection(error)
        return Ending(rank, host, 1, _in_short(cause) if lost else cause, told, follows=lost)
    finally:
        # Raising it again has lengthened it.
        error.__traceback__ = place


def ending_by_exit(rank: int, code: int, asked_to_stop: Iterable[int]) -> Ending:
    """What the exit code of a process says that has said nothing else.

    Args:
        code: as multiprocessing gives it: minus the signal where one ended it.
        asked_to_stop: the signals that the launcher had passed on before.
    """
    host = socket.gethostname()
    if code >= 0:
        # With 2 and no word ends a rank for which rank 0 speaks (agreement.py).
        status = code if code in (2, 130) else 1
        return Ending(rank, host, status, f"ended with status {code}", follows=code == 2)
    name = _signal_name(-code)
    if -code in asked_to_stop:
        return Ending(rank, host, PREEMPTED, f"ended by {name} before it had begun to train")
    if -code == signal.SIGINT:
        return Ending(rank, host, 130, f"ended by {name}")
    hint = "; the system does so when memory is short: see dmesg" if name == "SIGKILL" else ""
    return Ending(rank, host, 1, f"killed by {name}{hint}")


def report(store: dist.Store, ending: Ending) -> None:
    """Tell all launchers and ranks."""
    number = store.add("endings", 1)
    store.set(f"ending/{number}", json.dumps(asdict(ending)))


def reported(store: dist.Store) -> list[Ending]:
    """All endings so far, in the order in which they were told."""
    keys = [f"ending/{number}" for number in range(1, store.add("endings", 0) + 1)]
    # Between taking a number and telling, a key is not there yet.
    return [Ending(**json.loads(store.get(key))) for key in keys if store.check([key])]


def first(endings: Iterable[Ending]) -> Ending:
    """The one that brought down the others."""
    return min(endings, key=lambda ending: ending.follows)


def show(ending: Ending, size: int, *, with_traceback: bool) -> None:
    """Print the one line, after the traceback where the rank ran on this machine."""
    if with_traceback and ending.told:
        print(ending.told, file=sys.stderr, end="")
    print(ending.message(size), file=sys.stderr, flush=True)


def leave_at_once(status: int) -> NoReturn:
    """End this process without cleaning up, which could wait for those that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _is_lost_connection(error: BaseException) -> bool:
    if isinstance(error, InputError) or not isinstance(error, RuntimeError | ConnectionError):
        return False
    return isinstance(error, dist.DistError) or any(word in str(error) for word in _LOST)


def _in_short(complaint: str) -> str:
    """What gloo or NCCL say, without the place in their sources and without their advice."""
    words = re.sub(r"\[/[^\]]*\] ?", "", complaint)
    return f"lost the connection to another process ({words.split('. ')[0]})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _raise(error: BaseException) -> None:
    raise error
