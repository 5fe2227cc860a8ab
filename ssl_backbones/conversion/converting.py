"""The flow of a conversion, a straight line: read, identify, extract, verify, write."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..errors import InputError
from .extraction import extract
from .layouts import identify
from .reading import read_checkpoint, sha256_of
from .resnet import detectron2_name
from .verification import Proof, prove
from .writing import write_detectron2

# What every method here was trained on: torchvision's ToTensor and ImageNet statistics, times 255.
INPUT_CONVENTION = {
    "format": "RGB",
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "stride_in_1x1": False,
}


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        destination: where the result is; None after a dry run.
        container: which of the formats the source has.
        provenance: as it stands in the file.
        kept: key in the source to the Detectron2 name under which it is written.
        dropped: key in the source to the reason why it is left out.
        unknown: keys of the source outside the backbone that its layout does not mention; left out.
        foreign: types of objects in the source that were left unread.
        proof: None where it was not asked for.
        seconds: wall time of the conversion.
        peak_memory_bytes: of the process so far.
    """

    source: str
    destination: str | None
    container: str
    provenance: Mapping[str, object]
    kept: Mapping[str, str]
    dropped: Mapping[str, str]
    unknown: tuple[str, ...]
    foreign: tuple[str, ...]
    proof: Proof | None
    seconds: float
    peak_memory_bytes: int

    def to_dict(self) -> dict:
        """The same, of types that JSON knows."""
        return asdict(self) | {"proof": self.proof and self.proof.to_dict()}


def convert(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    *,
    selfsup: str = "auto",
    verify: bool = True,
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> ConversionReport:
    """Convert a self-supervised ResNet checkpoint to Detectron2's pickle format.

    Args:
        selfsup: the method whose layout the file has, or "auto" to recognise it.
        verify: prove the conversion before writing it; needs torch, torchvision and Detectron2.
        force: write over an existing `dst`.
        dry_run: do everything but write.
        progress: called with the name of each step as it begins.

    Raises:
        InputError: with one line; `dst` is then as it was before.
    """
    started = time.perf_counter()
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _check_destination(src, dst, force or dry_run)
    progress("reading")
    checkpoint = read_checkpoint(src)
    with ThreadPoolExecutor(1) as pool:
        # Hashing is a third of all the work without the proof; beside the rest it costs no time.
        sha256 = pool.submit(sha256_of, src)
        with _naming(src):
            found = identify(checkpoint.content, selfsup)
            progress("checking every tensor")
            backbone = extract(found)
            model = {detectron2_name(name): array for name, array in backbone.tensors.items()}
            proof = None
            if verify:
                progress("proving the conversion")
                proof = prove(backbone.tensors, model, backbone.architecture)

        def provenance() -> dict:
            return {
                "source": Path(src).name,
                "source_sha256": sha256.result(),
                "method": found.layout.selfsup,
                "layout": found.layout.name,
                "architecture": asdict(backbone.architecture),
                "input": INPUT_CONVENTION,
                "proof": proof and proof.to_dict(),
                "tool": f"ssl-backbones {__version__}",
                "date": date,
            }

        if not dry_run:
            progress("writing")
            write_detectron2(dst, model, provenance)
    return ConversionReport(
        source=os.fspath(src),
        destination=None if dry_run else os.fspath(dst),
        container=checkpoint.container,
        provenance=provenance(),
        kept={key: detectron2_name(name) for name, key in backbone.sources.items()},
        dropped=backbone.dropped,
        unknown=backbone.unknown,
        foreign=checkpoint.foreign,
        proof=proof,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=_peak_memory(),
    )


def _check_destination(src: str | os.PathLike, dst: str | os.PathLike, may_overwrite: bool) -> None:
    """Say what is wrong with the destination before any work is done."""
    path = Path(dst)
    if path.suffix != ".pkl":
        raise InputError(f"{dst} must end in .pkl: Detectron2 reads this format by that name only")
    if not os.access(path.parent, os.W_OK) or not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder that you may write to; give another one")
    if path.is_symlink():
        raise InputError(f"{dst} is a symbolic link; give the path of the file itself")
    if path.is_dir():
        raise InputError(f"{dst} is a folder; give the path of a file in it")
    with contextlib.suppress(OSError):
        if path.samefile(src):
            raise InputError(f"{dst} is the source itself; give another path for the result")
    if path.exists() and not may_overwrite:
        raise InputError(f"{dst} exists; give --force to write over it, or another path")


@contextlib.contextmanager
def _naming(src: str | os.PathLike) -> Iterator[None]:
    """Put the file's name before what is said about it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{os.fspath(src)} {error}") from error


def _peak_memory() -> int:
    """Largest resident size of this process in bytes, the mapped part of files included.

    Linux's `ru_maxrss` keeps the size of the process that started this one; VmHWM does not.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
