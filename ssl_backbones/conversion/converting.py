"""The flow of a conversion, a straight line: read, identify, extract, verify, write."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import InputError
from ..hashing import Sha256

if TYPE_CHECKING:
    from .extraction import Loaded
    from .proof import Proof

_SUFFIXES = (".tar", ".pth", ".pt", ".ckpt", ".pkl", ".bin", ".safetensors", ".torch")


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        suffix: that its name must have.
        content: what is in it and who reads it, in a few words.
    """

    name: str
    suffix: str
    content: str


FORMATS = {
    row.name: row
    for row in (
        Format("detectron2", ".pkl", "Detectron2's pickle, which every Detectron2 project loads"),
        Format(
            "detectron2-safetensors",
            ".safetensors",
            "the same without pickle, which this project's trainer loads",
        ),
        Format("torchvision", ".pth", "a state dict for torchvision's class, strictly, fc aside"),
        Format("safetensors", ".safetensors", "torchvision's names, provenance as metadata"),
        Format("mmdet", ".pth", "what MMDetection and MMPretrain load as a backbone"),
    )
}
"""The formats that a backbone is written in, by the name that the command line knows."""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        destination: where the result is; None after a dry run.
        format: which of `FORMATS` the result has.
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
    format: str
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
    branch: str | None = None,
    prefix: str | None = None,
    network: Mapping[str, object] | None = None,
    detector: bool = False,
    to: str = "detectron2",
    verify: bool = True,
    force: bool = False,
    dry_run: bool = False,
    sha256: str | None = None,
    published_in: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> ConversionReport:
    """Convert a self-supervised checkpoint to Detectron2's format, or to another one.

    Args:
        selfsup: the method whose layout the file has, or "auto" to recognise it.
        branch: which of the file's two networks to take; None for the one of its layout.
        prefix: of the backbone's names, where no layout is known.
        network: what no tensor of a ViT shows, where the file does not say it either: num_heads, norm_eps,
            interpolate_offset, interpolate_antialias.
        detector: take the backbone out of a file for Detectron2 or of one that it trained; its 3x3
            convolutions must hold the strides where no provenance says that the 1x1 do.
        to: a name of `FORMATS`.
        verify: prove the conversion before writing it; needs torch, torchvision and Detectron2.
        force: write over an existing `dst`.
        dry_run: do everything but write.
        sha256: of `src`, where it is known already; None to find it out.
        published_in: what the provenance is to say of where `src` was published: "package", "license".
        progress: called with the name of each step as it begins.

    Raises:
        InputError: with one line; `dst` is then as it was before.
    """
    started = time.perf_counter()
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _check_destination(src, dst, _format(to), force or dry_run)
    progress("reading")
    # Hashing is half of all the work without the proof. The rest goes on beside it, and is imported
    # only now, since numpy takes its time too.
    with Sha256(src) if sha256 is None else contextlib.nullcontext() as hashing:
        from .extraction import from_detector, from_pretraining
        from .families import RESNET
        from .proof import prove_loaded
        from .reading import naming, read_checkpoint
        from .writing import write_backbone

        checkpoint = read_checkpoint(src)
        with naming(src):
            progress("checking every tensor")
            loaded = (
                from_detector(checkpoint, network)
                if detector
                else from_pretraining(
                    checkpoint, selfsup=selfsup, branch=branch, prefix=prefix, network=network
                )
            )
            if to in ("torchvision", "mmdet") and loaded.backbone.family is not RESNET:
                raise InputError(
                    f"holds a {loaded.backbone.family.title}, and --to {to} writes ResNets: use detectron2, "
                    "detectron2-safetensors, or safetensors for timm's names"
                )
            if to == "torchvision" and loaded.stride_in_1x1:
                raise InputError(
                    "has its strides in the 1x1 convolutions, and torchvision's class, which --to "
                    "torchvision writes for, in the 3x3: it would compute something else; write another "
                    "format, all of which say so in their provenance"
                )
            backbone, family = loaded.backbone, loaded.backbone.family
            proof = None
            if verify:
                progress("proving the conversion")
                proof = prove_loaded(loaded)

        def provenance() -> dict:
            digest = sha256 or hashing.hexdigest()
            return _provenance(src, digest, published_in or {}, loaded, proof, date)

        if not dry_run:
            progress("writing")
            _make_folder(Path(dst).parent)
            write_backbone(to, dst, backbone.tensors, provenance, family)
        origin = provenance()
    return ConversionReport(
        source=os.fspath(src),
        destination=None if dry_run else os.fspath(dst),
        format=to,
        container=checkpoint.container,
        provenance=origin,
        kept={key: family.to_detectron2(name) for key, name in backbone.kept.items()},
        dropped=backbone.dropped,
        unknown=backbone.unknown,
        foreign=checkpoint.foreign,
        proof=proof,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=_peak_memory(),
    )


def _provenance(
    src: str | os.PathLike,
    sha256: str,
    published_in: Mapping[str, str],
    loaded: Loaded,
    proof: Proof | None,
    date: str,
) -> dict[str, object]:
    return {
        "source": Path(src).name,
        "source_sha256": sha256,
        **published_in,
        **loaded.origin,
        "architecture": loaded.backbone.architecture.to_dict(),
        "proof": proof and proof.to_dict(),
        "tool": f"ssl-backbones {__version__}",
        "date": date,
    }


def convert_all(
    sources: Sequence[str | os.PathLike], folder: str | os.PathLike, **options
) -> Iterator[tuple[str, ConversionReport | InputError]]:
    """Convert each of `sources` into `folder`, under its own name; a refusal stops none but its own.

    Args:
        options: those of `convert`.

    Yields:
        The source, and what became of it.

    Raises:
        InputError: `folder` cannot be made.
    """
    suffix = _format(options.get("to", "detectron2")).suffix
    if not options.get("dry_run"):
        _make_folder(folder)
    taken: dict[Path, str] = {}
    for source in map(os.fspath, sources):
        target = Path(folder) / f"{_stem(source)}{suffix}"
        try:
            if target in taken:
                raise InputError(
                    f"{source} would be written to {target}, which {taken[target]} has: rename one"
                )
            taken[target] = source
            yield source, convert(source, target, **options)
        except InputError as error:
            yield source, error


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise InputError(f"there is no format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _make_folder(folder: str | os.PathLike) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {os.fspath(folder)}: {error.strerror or error}; give another one"
        ) from error


def _stem(source: str) -> str:
    """The file's name without what only says how it is packed."""
    path = Path(source)
    while path.suffix in _SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _check_destination(
    src: str | os.PathLike, dst: str | os.PathLike, form: Format, may_overwrite: bool
) -> None:
    """Say what is wrong with the destination before any work is done."""
    path = Path(dst)
    if path.suffix != form.suffix:
        raise InputError(
            f"{dst} must end in {form.suffix}: by that name the format {form.name} is read (--to "
            "chooses another one)"
        )
    # Folders that are not there are made with the file, once it is known to be worth one.
    there = next(folder for folder in path.parents if folder.exists())
    if not os.access(there, os.W_OK) or not there.is_dir():
        raise InputError(f"{there} is not a folder that you may write to; give another one")
    if path.is_symlink():
        raise InputError(f"{dst} is a symbolic link; give the path of the file itself")
    if path.is_dir():
        raise InputError(f"{dst} is a folder; give the path of a file in it")
    with contextlib.suppress(OSError):
        if path.samefile(src):
            raise InputError(f"{dst} is the source itself; give another path for the result")
    if path.exists() and not may_overwrite:
        raise InputError(f"{dst} exists; give --force to write over it, or another path")


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
