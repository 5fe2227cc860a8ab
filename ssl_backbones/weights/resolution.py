"""From what a user writes as `train.init_checkpoint` to a file that the trainer can load."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from iopath.common.file_io import PathHandler

from ..errors import InputError
from ..hashing import digests_of, fingerprint_of, sha256_of
from .cache import Cache, KnownFile
from .download import download
from .wheels import WheelFile, fetch_from_wheel

if TYPE_CHECKING:
    from ..conversion import ConversionReport

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedHash:
    """The hash that a file's authors publish: its algorithm, its first digits or all, and where."""

    algorithm: str
    prefix: str
    source: str


@dataclass(frozen=True)
class NamedWeights:
    """Published weights under a short name: `ssl://NAME`.

    Attributes:
        origin: the file's address, or the package that it is published in.
        method: whose layout the file has, as the converter's `selfsup` says it.
        source: the page that publishes the address.
        published: None where the authors publish no hash.
    """

    name: str
    origin: str | WheelFile
    method: str
    source: str
    published: PublishedHash | None = None

    @property
    def file_name(self) -> str:
        """What the file is called in the cache."""
        if isinstance(self.origin, WheelFile):
            return self.origin.file_name
        return self.origin.rsplit("/", 1)[-1]

    @property
    def without_network(self) -> str:
        """What a user can do who cannot download it; ends what is said of a failure."""
        if isinstance(self.origin, WheelFile):
            return self.origin.without_network
        return _WITHOUT_NETWORK

    @property
    def published_in(self) -> dict[str, str]:
        """The package, for the provenance; {} where there is none."""
        if not isinstance(self.origin, WheelFile):
            return {}
        return {
            "package": f"{self.origin.package} {self.origin.version}: {self.origin.path}",
            "license": self.origin.license,
        }


_MOCO_README = "https://github.com/facebookresearch/moco/blob/main/README.md"
_MOCO_FILES = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints"
_SWAV_README = "https://github.com/facebookresearch/swav/blob/main/README.md"
_CONVNEXT_FILES = "https://dl.fbaipublicfiles.com/convnext"
_TORCHVISION = "https://github.com/pytorch/vision/blob/main/torchvision/models/resnet.py"


def _moco(name: str, md5: str) -> NamedWeights:
    """A row of the README's table "Models", which gives the first eight digits of each MD5."""
    url = f"{_MOCO_FILES}/{name}/{name}_pretrain.pth.tar"
    return NamedWeights(name, url, "moco", _MOCO_README, PublishedHash("md5", md5, _MOCO_README))


NAMED_WEIGHTS: Mapping[str, NamedWeights] = MappingProxyType(
    {
        row.name: row
        for row in (
            _moco("moco_v1_200ep", "b251726a"),
            _moco("moco_v2_200ep", "59fd9945"),
            _moco("moco_v2_800ep", "a04e12f8"),
            NamedWeights(
                "swav_800ep",
                "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
                "swav",
                _SWAV_README,
            ),
            # ResNet50_Weights.IMAGENET1K_V1, the control of most papers. The end of its name is the
            # beginning of its sha256, by torch.hub's convention.
            NamedWeights(
                "supervised_imagenet",
                "https://download.pytorch.org/models/resnet50-0676ba61.pth",
                "torchvision",
                _TORCHVISION,
                PublishedHash("sha256", "0676ba61", _TORCHVISION),
            ),
            # The files' own names, by which ConvNeXt's detectors and ConvNeXt-V2's README have them.
            NamedWeights(
                "convnext_tiny_imagenet",
                f"{_CONVNEXT_FILES}/convnext_tiny_1k_224.pth",
                "convnext",
                "https://github.com/facebookresearch/ConvNeXt/blob/main/object_detection/README.md",
            ),
            NamedWeights(
                "convnextv2_tiny_fcmae",
                f"{_CONVNEXT_FILES}/convnextv2/pt_only/convnextv2_tiny_1k_224_fcmae.pt",
                "fcmae",
                "https://github.com/facebookresearch/ConvNeXt-V2/blob/main/README.md",
            ),
            NamedWeights(
                "mae_vit_base",
                "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth",
                "mae",
                "https://github.com/facebookresearch/mae/blob/main/README.md",
            ),
            NamedWeights(
                "dino_vit_small",
                "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/"
                "dino_deitsmall16_pretrain.pth",
                "dino",
                "https://github.com/facebookresearch/dino/blob/main/README.md",
            ),
            # AugNet's ResNet-50 (arXiv 2106.06250), for which its README has one install the package.
            NamedWeights(
                "augnet_imagenet",
                WheelFile("imgsim", "0.1.2", "imgsim/model.pth", license="MIT"),
                "augnet",
                "https://github.com/chenmingxiang110/AugNet/blob/main/README.md",
                PublishedHash(
                    "sha256",
                    "c2cb3cac82642c5698721bd4c57702c3d2ffab077ee9fc277c60ef7359293add",
                    "RECORD in the wheel on https://pypi.org/project/imgsim/0.1.2/",
                ),
            ),
        )
    }
)


_WITHOUT_NETWORK = (
    "on a machine without network access, copy the file there and give "
    "train.init_checkpoint=/path/to/file"
)


class SSLWeightsHandler(PathHandler):
    """Serves `ssl://NAME` to iopath: downloaded, checked, converted with proof, and cached.

    The local path is that of the converted copy. The first download records the file's sha256 once
    the conversion has accepted it; every later download must have the same.

    Args:
        weights: the names that can be asked for.
        cache: None for the one that the environment names at the time of a call.

    Raises (each method): InputError with one line for an unknown name and for whatever goes wrong
    in download, check, conversion or cache.
    """

    PREFIX = "ssl://"

    def __init__(
        self, weights: Mapping[str, NamedWeights] = NAMED_WEIGHTS, cache: Cache | None = None
    ) -> None:
        super().__init__()
        self._weights = weights
        self._cache = cache

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        row = self._row(path)
        cache = self._cache or Cache.from_environment()
        known = cache.known(row.name)
        if known and not force and (copy := cache.converted(_key(known.sha256, row.published_in))):
            return str(copy)
        with cache.lock(row.name):
            return str(_fetch(row, cache, force))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rb"):
            raise InputError(f"{path} can only be read, not opened with mode {mode!r}")
        return open(self._get_local_path(path, **kwargs), mode, buffering=buffering)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        return path.removeprefix(self.PREFIX) in self._weights

    _isfile = _exists

    def _row(self, path: str) -> NamedWeights:
        return row_of(path, self._weights)


def register_handler() -> None:
    """Make `ssl://` known to Detectron2's PathManager; a handler already there stays."""
    from detectron2.utils.file_io import PathManager

    with contextlib.suppress(KeyError):
        PathManager.register_handler(SSLWeightsHandler(), allow_override=False)


def resolve(init_checkpoint: str) -> str:
    """The path of a file that the trainer can load, for what a user wrote as `init_checkpoint`.

    "" (from scratch) stays "". A converted file and a Detectron2 checkpoint, told by their content
    and not by their name, are returned as they are. A raw self-supervised file is converted with
    proof into the cache, and found there at the next call by its sha256 and that of the text beside
    it that the conversion reads. `ssl://NAME` is downloaded first if need be, and any other address
    (`detectron2://`, `https://`) goes through Detectron2's PathManager.

    A raw file is hashed once at each call and its copy once more, together well under a second;
    a file that needs no conversion has only its headers read.

    Raises:
        InputError: no such file, an address that gives none, or a file that the conversion refuses.
    """
    if not init_checkpoint:
        return ""
    if "://" not in init_checkpoint:
        return _loadable(Path(init_checkpoint).expanduser())
    path = _local_path(init_checkpoint)
    if init_checkpoint.startswith(SSLWeightsHandler.PREFIX):
        return path
    try:
        return _loadable(Path(path))
    except InputError as error:
        raise InputError(f"{init_checkpoint}: {error} (its local copy is {path})") from error


def fetch_original(address: str) -> Path:
    """The file behind `ssl://NAME` as its authors publish it: fetched unless the cache has it, and checked.

    Raises:
        InputError: an unknown name, or whatever goes wrong in download, check or cache.
    """
    return _kept_or_fetched(row_of(address), Cache.from_environment())[0]


def convert_named(
    address: str, dst: str | os.PathLike, *, selfsup: str = "auto", **options: Any
) -> ConversionReport:
    """Convert what `fetch_original` gives, with the package that published it in the provenance.

    Args:
        selfsup: "auto" for the method that the name stands for.
        options: the others of `conversion.convert`.

    Raises:
        InputError: what `fetch_original` and the conversion raise; `dst` is then as it was before.
    """
    from ..conversion import convert

    row, cache = row_of(address), Cache.from_environment()
    original, sha256 = _kept_or_fetched(row, cache)
    method = row.method if selfsup == "auto" else selfsup
    report = convert(
        original, dst, selfsup=method, sha256=sha256, published_in=row.published_in, **options
    )
    if cache.known(row.name) is None:
        cache.record(row.name, str(row.origin), sha256)
    return report


def _kept_or_fetched(row: NamedWeights, cache: Cache) -> tuple[Path, str]:
    """What `_original` gives. What is there takes no lock: a cache that was filled may be read-only."""
    original = cache.downloads() / row.file_name
    if original.is_file():
        with contextlib.suppress(InputError):  # fetched again below
            return original, _checked(row, original, cache.known(row.name), cache)
    with cache.lock(row.name):
        return _original(row, cache, force=False)


def row_of(address: str, weights: Mapping[str, NamedWeights] | None = None) -> NamedWeights:
    """The weights of an ssl://NAME, among `NAMED_WEIGHTS` unless others are given.

    Raises:
        InputError: there are none of that name.
    """
    prefix, weights = SSLWeightsHandler.PREFIX, NAMED_WEIGHTS if weights is None else weights
    try:
        return weights[address.removeprefix(prefix)]
    except KeyError:
        names = ", ".join(prefix + name for name in weights)
        raise InputError(f"no weights are named {address}; there are {names}") from None


def _local_path(address: str) -> str:
    from detectron2.utils.file_io import PathManager

    register_handler()
    try:
        return PathManager.get_local_path(address)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"cannot get {address}: {error}; {_WITHOUT_NETWORK}") from error


def _loadable(path: Path) -> str:
    """`path` itself if the trainer can load it, else its converted copy."""
    from ..conversion.reading import read_checkpoint

    if not path.exists():
        names = ", ".join(SSLWeightsHandler.PREFIX + name for name in NAMED_WEIGHTS)
        raise InputError(f"no file at {path} to start from; give a checkpoint file, or {names}")
    if _is_for_detectron2(read_checkpoint(path).content):
        return str(path)
    return str(_converted(path, Cache.from_environment()))


def _is_for_detectron2(content: Any) -> bool:
    """Whether it is a model-zoo file (`__author__`), or tensors under Detectron2's names.

    These are told by a ResNet's stem, since `layerK` and `conv1` without a `stem.` are torchvision's names,
    or, of any backbone, by the RPN beside it. They stand under "model" in what Detectron2's trainer saves and
    at the top of a safetensors file.
    """
    if not isinstance(content, Mapping):
        return False
    # Caffe2's files, such as the model zoo's ImageNet ResNets from MSRA, which Detectron2 renames itself.
    if isinstance(content.get("blobs"), Mapping) or "conv1_w" in content:
        return True
    model = content.get("model", content)
    if not isinstance(model, Mapping):
        return False
    return "__author__" in content or any(
        f".{key}".endswith(".stem.conv1.weight") or f".{key}".startswith(".proposal_generator.")
        for key in model
    )


def _converted(
    source: Path,
    cache: Cache,
    selfsup: str = "auto",
    sha256: str | None = None,
    published_in: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """The converted copy of a raw file: made with proof at the first call.

    Raises:
        InputError: it cannot be converted, or was written to between its hashing and its conversion.
    """
    written = _last_written(source)
    text = _text_beside(source)
    sha256 = sha256 or sha256_of(source)

    def convert_to(copy: Path) -> None:
        from ..conversion import convert

        try:
            convert(
                source, copy, selfsup=selfsup, force=True, sha256=sha256, published_in=published_in
            )
        except InputError as error:
            if re.search(r"--(prefix|selfsup|branch)\b", str(error)) is None:
                raise
            raise InputError(
                f"{error}; that is an option of tools/convert_checkpoint.py: convert the file by it and "
                "start from the result"
            ) from error
        if _last_written(source) != written or _text_beside(source) != text:
            copy.unlink(missing_ok=True)
            raise InputError(f"{source} changed while it was read: start again when it is complete")
        logger.info("converted %s to %s", source, copy)

    return cache.keep_converted(_key(sha256, published_in), convert_to, text)


def _key(sha256: str, published_in: Mapping[str, str]) -> str:
    """What the cache knows a converted copy by.

    The same file that a user brings has a copy of its own, whose provenance names no package.
    """
    return fingerprint_of([sha256, dict(published_in)]) if published_in else sha256


def _text_beside(source: Path) -> str:
    """The fingerprint of the text beside a raw file that its conversion reads; "" where there is none."""
    from ..conversion.reading import naming, read_checkpoint
    from ..conversion.stated import TEXT_NAMES, texts_beside

    if not any(os.path.lexists(source.with_name(name)) for name in TEXT_NAMES):
        return ""  # most folders; the checkpoint is read for nothing else
    checkpoint = read_checkpoint(source)
    with naming(source):
        texts = texts_beside(checkpoint)
    return fingerprint_of({name: text.sha256 for name, text in texts.items()}) if texts else ""


def _last_written(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _fetch(row: NamedWeights, cache: Cache, force: bool) -> Path:
    """The converted copy of a named file, which is downloaded unless the original is here."""
    original, sha256 = _original(row, cache, force)
    try:
        copy = _converted(original, cache, row.method, sha256, row.published_in)
    except InputError as error:
        raise InputError(
            f"ssl://{row.name}: {error} (it came from {row.origin}; delete {original} to download it "
            "again)"
        ) from error
    cache.record(row.name, str(row.origin), sha256)
    return copy


def _original(row: NamedWeights, cache: Cache, force: bool) -> tuple[Path, str]:
    """The file as its authors publish it, and its sha256."""
    original = cache.downloads() / row.file_name
    known = cache.known(row.name)
    if original.is_file() and not force:
        try:
            return original, _checked(row, original, known, cache)
        except InputError:
            logger.warning("%s is not what was downloaded; downloading it again", original)
    sha256 = ""

    def check(part: Path) -> None:
        nonlocal sha256
        sha256 = _checked(row, part, known, cache)

    if isinstance(row.origin, WheelFile):
        fetch_from_wheel(row.origin, original, check)
    else:
        download(row.origin, original, check=check, mend=row.without_network)
    return original, sha256


def _checked(row: NamedWeights, path: Path, known: KnownFile | None, cache: Cache) -> str:
    """The sha256 of a file that has the published hash and the one of its first download."""
    published = row.published
    digests = digests_of(path, "sha256", *([published.algorithm] if published else []))
    if published and not digests[published.algorithm].startswith(published.prefix):
        is_whole = len(published.prefix) == len(digests[published.algorithm])
        raise InputError(
            f"ssl://{row.name}: the {published.algorithm} of what came from {row.origin} is "
            f"{digests[published.algorithm]}, but {published.source} publishes "
            f"{published.prefix}{'' if is_whole else '...'}; try again, and if it stays so what is "
            f"served is not the published file: {row.without_network}"
        )
    if known and digests["sha256"] != known.sha256:
        raise InputError(
            f"ssl://{row.name}: the sha256 of what came from {row.origin} is {digests['sha256']}, "
            f"but {known.sha256} was recorded on {known.recorded}; if you trust the new file, delete "
            f'"{row.name}" from {cache.known_hashes} and try again'
        )
    return digests["sha256"]
