"""Self-supervised ResNets in Detectron2, proved to be really at work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["InputError", "__version__", "config_file", "get_config"]

__version__ = "0.1.0"


def configs_folder() -> Path:
    """Where the shipped configs are."""
    package = Path(__file__).parent
    # A wheel carries the configs inside the package; a checkout has them beside it.
    return next(f for f in (package / "configs", package.parent / "configs") if f.is_dir())


def config_file(name: str) -> Path:
    """Path of the shipped config `name`, such as "swav_ms2x" or "configs/swav_ms2x.py".

    Raises:
        InputError: no config of that name is shipped; the message lists those that are.
    """
    folder = configs_folder()
    stem = Path(name).stem
    path = folder / f"{stem}.py"
    if not path.is_file() or str(name) not in (stem, f"{stem}.py", f"configs/{stem}.py"):
        shipped = ", ".join(sorted(file.stem for file in folder.glob("*.py")))
        raise InputError(f"no config named {name!r}: give a file, or one of {shipped}")
    return path


def tool_command(tool: str) -> list[str]:
    """The words that start one of our commands from any folder: a script beside the one that runs now.

    Args:
        tool: "train_net", "report" or another file of tools/, without its suffix.
    """
    running = Path(sys.argv[0]).absolute()
    script = running.with_name(f"{tool}.py")
    if running.suffix == ".py" and script.is_file():
        return [sys.executable, str(script)]
    installed = running.with_name(_SCRIPTS[tool])
    return [str(installed)] if installed.is_file() else [f"tools/{tool}.py"]


_SCRIPTS = {"train_net": "ssl-train", "report": "ssl-report", "browse_data": "ssl-browse"}


def get_config(name: str) -> DictConfig:
    """Load the shipped config `name` as Detectron2's LazyConfig does.

    Example:
        >>> get_config("swav_ms2x").train.max_iter
        180000

    Raises:
        InputError: no config of that name is shipped.
    """
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(config_file(name)))
