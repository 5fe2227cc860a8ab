"""RUN/run.json: what it takes to repeat a run, where it ran, and in what two runs differ."""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ssl_backbones

from ..errors import InputError
from ..files import write_atomically
from ..hashing import fingerprint_of
from .recipe import compare, flat, recipe

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger("detectron2")

NAME = "run.json"

_ENVIRONMENT = ("CUDA_", "CUBLAS_", "DETECTRON2_", "MKL_", "NCCL_", "OMP_", "PYTORCH_", "TORCH_")
"""Beginnings of the variables that are recorded: no others, since some hold secrets."""


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


def environment() -> dict[str, Any]:
    """Versions of all that is installed, the machine, and the variables that steer them."""
    import importlib.metadata

    import detectron2
    import torch
    import torchvision

    on_gpu = torch.cuda.is_available()
    return {
        "versions": {
            "ssl_backbones": ssl_backbones.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "detectron2": detectron2.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        },
        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_ENVIRONMENT)},
        "packages": {
            found.metadata["Name"]: found.version
            for found in sorted(importlib.metadata.distributions(), key=lambda d: d.name or "")
            if found.metadata["Name"]
        },
    }


def git_states(folder: str | os.PathLike) -> dict[str, Any]:
    """Commit and state of the checkouts that the code is from, and their changes as files in `folder`."""
    package = Path(ssl_backbones.__file__).parent.parent
    states = {"ssl_backbones": _git_state(package), "working_folder": _git_state(Path.cwd())}
    own, other = states.values()
    if own and Path(own["folder"]) != package:
        # The package is installed inside somebody else's checkout.
        states["ssl_backbones"] = None
    elif own and other and own["folder"] == other["folder"]:
        states["working_folder"] = None
    states = {name: state for name, state in states.items() if state}
    for name, state in states.items():
        if state["dirty"]:
            state["diff"] = f"{name}.diff"
            _write_diff(state["folder"], os.path.join(folder, state["diff"]))
    return states


def _write_diff(checkout: str, path: str) -> None:
    """What is changed against the commit; nothing that the checkout's own settings name is run."""
    words = ("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
    changes = git_output(checkout, *words) or b""
    write_atomically(path, lambda file: file.write(changes))


def _git_state(place: Path) -> dict[str, Any] | None:
    """None where there is no checkout, or no git."""
    root = git_output(place, "rev-parse", "--show-toplevel")
    commit = git_output(place, "rev-parse", "HEAD")
    changes = git_output(place, "status", "--porcelain")
    if root is None or commit is None or changes is None:
        return None
    return {
        "folder": root.decode().strip(),
        "commit": commit.decode().strip(),
        "dirty": bool(changes.strip()),
        "untracked": [
            line[3:] for line in changes.decode(errors="replace").splitlines() if line[:2] == "??"
        ],
    }


def git_output(place: str | os.PathLike, *words: str) -> bytes | None:
    """What git prints in the folder `place`; None where it fails or is not installed."""
    try:
        return subprocess.run(
            ["git", "-C", str(place), *words], capture_output=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
