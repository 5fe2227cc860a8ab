"""The checkpoints of a run folder: which to go on from, and which to keep."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil

from ...errors import InputError
from ...files import write_atomically
from ...hashing import checksum_beside, sha256_of, why_unusable, write_checksum

logger = logging.getLogger(__name__)

# As files.write_atomically names them.
_UNFINISHED = re.compile(r"\.(model_\w+\.pth(\.sha256)?|last_checkpoint)\.\w{8}")
_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


def newest(folder: str) -> str | None:
    """The checkpoint to go on from: the one that `last_checkpoint` names, or the newest undamaged before it.

    Returns:
        Its path; None where there is no checkpoint.

    Raises:
        InputError: there are checkpoints and all of them are damaged.
    """
    named, older = pointed_at(folder), numbered(folder)[::-1]
    if named is None and not older:
        return None
    candidates = older if named is None else [named, *(path for path in older if path != named)]
    if named is None:
        logger.warning(f"{folder} has checkpoints and no last_checkpoint: the newest is taken")
    elif not any(map(os.path.exists, map(checksum_beside, candidates))):
        # A folder of Detectron2's own trainer, which keeps no checksums.
        return named
    elif named in older:
        candidates = older[older.index(named) :]
    for path in candidates:
        reason = why_unusable(path)
        if reason is None:
            return path
        logger.warning(f"checkpoint {path} is passed over: {reason}")
    raise InputError(
        f"every checkpoint in {folder} is damaged (the lines above say how): restore one from a backup, or "
        "start anew in another train.output_dir"
    )


def pointed_at(folder: str) -> str | None:
    """Path of the checkpoint that `last_checkpoint` names; None where there is no such file."""
    try:
        with open(os.path.join(folder, "last_checkpoint"), encoding="utf-8") as file:
            return os.path.join(folder, os.path.basename(file.read().strip()))
    except FileNotFoundError:
        return None


def numbered(folder: str) -> list[str]:
    """Paths of the periodic checkpoints, oldest first."""
    if not os.path.isdir(folder):
        return []
    found = filter(None, map(_NUMBERED.fullmatch, os.listdir(folder)))
    return [os.path.join(folder, match[0]) for match in sorted(found, key=lambda m: int(m[1]))]


def keep_newest(folder: str, count: int | None, newest: str) -> None:
    """Remove all but the `count` newest periodic checkpoints (None: keep all).

    Those after `newest`, the one just written, are of a future that was given up; they neither count nor go.
    """
    paths = numbered(folder)
    written = os.path.join(folder, f"{newest}.pth")
    if written in paths:
        paths = paths[: paths.index(written) + 1]
    for path in paths[:-count] if count else ():
        # The checksum first: a checkpoint without one is never taken for a good one.
        remove(checksum_beside(path))
        remove(path)


def remove_unfinished(folder: str) -> None:
    """Remove what killed writes have left: the temporary files of checkpoints and pointers."""
    for name in filter(_UNFINISHED.fullmatch, os.listdir(folder)):
        remove(os.path.join(folder, name))


def copy(folder: str, name: str, new_name: str) -> None:
    """Make `new_name`.pth, with its checksum, from `name`.pth."""
    source, target = (os.path.join(folder, f"{n}.pth") for n in (name, new_name))
    with open(source, "rb") as file:
        write_atomically(target, lambda new: shutil.copyfileobj(file, new))
    write_checksum(target, sha256_of(target))


def remove(path: str) -> None:
    """Remove a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
