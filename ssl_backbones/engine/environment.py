"""What a run runs on: versions, machine, and the state of the code."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import ssl_backbones

from ..files import write_atomically

_ENVIRONMENT = ("CUDA_", "CUBLAS_", "DETECTRON2_", "MKL_", "NCCL_", "OMP_", "PYTORCH_", "TORCH_")
"""Beginnings of the variables that are recorded: no others, since some hold secrets."""


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
