"""Libraries that make parts of this package faster and that it can do without."""

from __future__ import annotations

import atexit
import functools
import importlib
import logging
import os
import shutil
import tempfile
from types import ModuleType

from ..files import cache_folder

logger = logging.getLogger(__name__)

WITHOUT = "SSL_BACKBONES_WITHOUT"
"""Environment variable: names of libraries that are not used although they are there, by commas."""


@functools.cache
def optional(name: str, purpose: str) -> ModuleType | None:
    """The library `name`, or None with one line in the log about what is slower without it.

    Args:
        purpose: what it is for, as the first words of a sentence: "Reading JPEG files".
    """
    if name in os.environ.get(WITHOUT, "").split(","):
        reason = f"{WITHOUT} names it"
    else:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = str(error)
    logger.warning(
        f"{purpose} takes a slower way with the same result, for want of {name} ({reason}); "
        "pip install 'ssl-backbones[fast]' has it"
    )
    return None


def numba_or_none(purpose: str) -> ModuleType | None:
    """Numba, or None with one line in the log: ask it before importing a module of kernels."""
    numba = optional("numba", purpose)
    if numba is not None:
        _give_cache(numba)
    return numba


@functools.cache
def _give_cache(numba: ModuleType) -> None:
    """Give numba a folder for what it compiles where it finds none, at which it raises an error.

    It looks beside the source and in the user's cache folder. Both may be read-only.
    """
    try:
        numba.njit(cache=True)(_nothing)
    except RuntimeError:
        folder = cache_folder() / "numba"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            folder = tempfile.mkdtemp(prefix="ssl_backbones_numba_")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            logger.warning(
                "no folder that numba could keep compiled code in can be written to: this process compiles "
                "anew; set NUMBA_CACHE_DIR to one"
            )
        numba.config.CACHE_DIR = str(folder)


def _nothing() -> None:
    """Never called: numba looks for a folder when a function is prepared."""
