"""RUN/run.json: what it takes to repeat a run, or to say in what two runs differ."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import write_atomically
from ..hashing import fingerprint_of
from .environment import environment, git_states
from .recipe import compare, flat, recipe

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger("detectron2")

NAME = "run.json"


def start(
    folder: str | os.PathLike,
    cfg: DictConfig,
    *,
    provenance: Mapping[str, Any] | None = None,
    slots: int = 1,
    iteration: int = 0,
    resumed: bool = False,
) -> str:
    """Write what is known of a run that begins or goes on into `folder`; on the main process alone.

    A resumed run adds to what is there: each start is kept. If its config differs in fields that affect the
    result, one warning names them.

    Args:
        cfg: as it takes effect, the seed drawn.
        iteration: the first that will be done.

    Returns:
        The fingerprint.

    Raises:
        InputError: the file cannot be written.
    """
    fields = recipe(cfg, provenance, slots)
    hashed = fingerprint_of(fields)
    before = _before(folder) if resumed else {}
    changed = compare(before["recipe"], fields) if before else []
    if changed:
        logger.warning(
            "The config of the resumed run differs from that in %s in what affects the result: %s. Give the "
            "same config and overrides to continue the same run",
            os.path.join(folder, NAME),
            "; ".join(f"{key} is {new}, was {old}" for key, old, new in changed),
        )
    this = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "iteration": iteration,
        "host": socket.gethostname(),
        "command_line": sys.argv,
        "fingerprint": hashed,
        "changed": [list(change) for change in changed],
    }
    content = {
        "command_line": sys.argv,
        "seed": cfg.train.get("seed"),
        "fingerprint": hashed,
        "recipe": fields,
        "weights": dict(provenance or {}),
        "environment": environment(),
        "git": git_states(folder),
        "starts": [*before.get("starts", []), this],
    }
    text = json.dumps(content, indent=1, default=str) + "\n"
    write_atomically(os.path.join(folder, NAME), lambda file: file.write(text.encode()))
    return hashed


def read(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of a run folder's run.json.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    path = os.path.join(folder, NAME)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise InputError(f"cannot read {path}: {reason}; give the folder of a run") from error
    shape = {"recipe": dict, "environment": dict, "starts": list}
    if not isinstance(content, dict) or any(
        not isinstance(content.get(name), kind) for name, kind in shape.items()
    ):
        raise InputError(f"{path} is not the record of a run; give the folder of a run")
    return content


def differences(run_a: str | os.PathLike, run_b: str | os.PathLike) -> list[tuple[str, Any, Any]]:
    """(field, value in `run_a`, value in `run_b`) of all that affects the result and differs.

    Raises:
        InputError: one of the folders has no record.
    """
    return compare(read(run_a)["recipe"], read(run_b)["recipe"])


def environment_differences(
    run_a: str | os.PathLike, run_b: str | os.PathLike
) -> list[tuple[str, Any, Any]]:
    """The same of versions, machine and code, which may change a result in its rounding, or by a bug."""
    records = read(run_a), read(run_b)
    return compare(*(dict(flat({**r["environment"], "git": r.get("git")})) for r in records))


def _before(folder: str | os.PathLike) -> dict[str, Any]:
    """The record of the run that is resumed; a lost one is no reason not to go on."""
    try:
        return read(folder)
    except InputError as error:
        logger.warning(f"What the run was started with is not known: {error}")
        return {}
