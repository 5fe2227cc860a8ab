"""Where Detectron2's source comes from: v0.6 through pip, a folder, or a git repository."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import InputError, InstallationError
from ..packages import run_pip

# The v0.6 release, republished on PyPI: upstream publishes no package there.
PINNED_NAME = "pb1-detectron2"
PINNED_VERSION = "0.6"
PINNED_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# What upstream's setup.py makes the package of: prefix in the source -> in the wheel.
_LAYOUT = {
    "detectron2/": "detectron2/",
    "configs/": "detectron2/model_zoo/configs/",
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
}
_SUFFIXES = {".py", ".yaml"}


@dataclass(frozen=True)
class Source:
    """Detectron2's Python and config files, by their path in the wheel, and its licence."""

    files: dict[str, bytes]
    license: bytes
    origin: str  # for people
    label: str  # the local part of the wheel's version, "pure" or "pure.g02b5c4e"
    pinned: bool

    @property
    def version(self) -> str:
        """Version of the wheel, such as "0.6+pure": nobody shall mistake it for a compiled one."""
        init = self.files["detectron2/__init__.py"].decode("utf-8")
        match = re.search(r'^__version__ = "([0-9.]+)"$', init, re.MULTILINE)
        if match is None:
            raise InputError(f"detectron2/__init__.py in {self.origin} states no __version__")
        return f"{match[1]}+{self.label}"


def fetch_pinned() -> Source:
    """Fetch the pinned v0.6 through pip and read it.

    Raises:
        InstallationError: nothing could be fetched, or its sha256 is not the pinned one.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_pinned(download_pinned(Path(folder)))


def download_pinned(folder: Path) -> Path:
    """Download the pinned v0.6 into `folder` through pip, so that the user's mirrors serve it.

    pip checks the sha256 as it downloads. No code of the download is run.

    Raises:
        InstallationError: nothing could be fetched, or its sha256 is not the pinned one.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{PINNED_NAME}=={PINNED_VERSION} --hash=sha256:{PINNED_SHA256}\n")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    result = run_pip(
        *("download", *options, "--dest", str(folder), "-r", str(requirement)),
        environment=_ask_our_backend(folder / "backend"),
    )
    archives = list(folder.glob("*.tar.gz"))
    if result.failure or len(archives) != 1:
        raise InstallationError(_why_not_fetched(result.output, result.failure))
    return archives[0]


def read_pinned(archive: Path) -> Source:
    """Read the pinned v0.6 from its sdist.

    Raises:
        InstallationError: its sha256 is not the pinned one.
    """
    content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != PINNED_SHA256:
        raise InstallationError(_wrong_hash(found))
    return _source(_tar_files(content), f"{PINNED_NAME} {PINNED_VERSION}", "pure", pinned=True)


def read_location(location: str) -> Source:
    """Read Detectron2 from a folder, or from a git repository by path or URL, optionally `@REF`.

    A folder that holds a `detectron2` package is read as it stands, changes not yet committed
    included; anything else is cloned by git.

    Raises:
        InputError: there is no Detectron2 there, no such ref, or no git to read it with.
        InstallationError: git cannot fetch it.
    """
    if not location.strip():
        raise _no_detectron2(location, "nothing is named")
    folder = Path(location).expanduser()
    if (folder / "detectron2").is_dir():
        return _read_folder(folder)
    url, ref = _split_ref(location)
    if ":" not in url:
        url = str(Path(url).expanduser())
        if not any(Path(url, name).exists() for name in (".git", "HEAD")):
            raise _no_detectron2(location, "it is neither a checkout nor a git repository")
    return _read_repository(url, ref)


def _read_folder(folder: Path) -> Source:
    files = dict(_folder_files(folder))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{len(files[path])}\0".encode() + files[path])
    label = f"pure.local{digest.hexdigest()[:7]}"
    return _source(files, str(folder), label, pinned=False)


def _read_repository(url: str, ref: str) -> Source:
    with tempfile.TemporaryDirectory() as clone:
        _git("clone", "--bare", "--quiet", "--", url, clone)
        try:
            revision = ("--short=7", "--verify", "--end-of-options", f"{ref}^{{commit}}")
            commit = _git("-C", clone, "rev-parse", *revision).decode().strip()
        except InstallationError as error:
            raise InputError(f"{url} has no commit, branch or tag {ref!r}; name another") from error
        archive = _git("-C", clone, "archive", "--format=tar", "--prefix=detectron2/", commit)
    return _source(_tar_files(archive), f"{url} at {commit}", f"pure.g{commit}", pinned=False)


def _split_ref(location: str) -> tuple[str, str]:
    """Split `git+URL@REF` as pip writes it; the @ of `user@host` is no ref. No ref means HEAD."""
    location = location.removeprefix("git+")
    url, at, ref = location.rpartition("@")
    if not at or "/" not in url or Path(location).exists():
        return location, "HEAD"
    return url, ref


def _git(*arguments: str) -> bytes:
    # A prompt for a password would wait for ever where nobody can answer.
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        result = subprocess.run(
            ["git", *arguments], capture_output=True, stdin=subprocess.DEVNULL, env=environment
        )
    except FileNotFoundError as error:
        raise InputError(
            "reading a git repository needs git, which is not installed: install it, or give a "
            "checkout of Detectron2"
        ) from error
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise InstallationError(f"git cannot read the repository: {reason}")
    return result.stdout


def _source(files: dict[str, bytes], origin: str, label: str, *, pinned: bool) -> Source:
    """Lay the files of a source tree out as the wheel has them."""
    laid_out = {}
    for path, content in files.items():
        for prefix, target in _LAYOUT.items():
            if path.startswith(prefix) and PurePosixPath(path).suffix in _SUFFIXES:
                laid_out[target + path.removeprefix(prefix)] = content
    for required in ("detectron2/__init__.py", "detectron2/model_zoo/model_zoo.py"):
        if required not in laid_out:
            raise _no_detectron2(origin, f"{required} is missing")
    return Source(laid_out, files.get("LICENSE", b""), origin, label, pinned)


def _no_detectron2(location: str, reason: str) -> InputError:
    return InputError(
        f"there is no Detectron2 in {location!r}: {reason}; give a checkout of it, or the path or "
        "URL of its git repository"
    )


def _tar_files(content: bytes) -> dict[str, bytes]:
    """The regular files of an archive, by their path below its one top folder."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if member.isfile():
                _, _, path = member.name.removeprefix("./").partition("/")
                files[path] = archive.extractfile(member).read()
    return files


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a checkout that matter; no links (a build leaves one to configs/)."""
    yield from ((p.name, p.read_bytes()) for p in [folder / "LICENSE"] if p.is_file())
    for prefix in _LAYOUT:
        for parent, _, names in os.walk(folder / prefix):
            for path in (Path(parent, name) for name in names):
                if path.suffix in _SUFFIXES and path.is_file():
                    yield path.relative_to(folder).as_posix(), path.read_bytes()


def _ask_our_backend(folder: Path) -> dict[str, str]:
    """Settings under which pip finds our backend where it looks for setuptools'."""
    package = folder / "setuptools"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    backend = Path(__file__).with_name("metadata_backend.py")
    (package / "build_meta.py").write_bytes(backend.read_bytes())
    # Older pips ask setup.py itself unless told; newer ones have dropped the choice.
    return {"PYTHONPATH": str(folder), "PIP_USE_PEP517": "1"}


def _why_not_fetched(output: str, failure: str) -> str:
    mismatch = re.search(r"Got\s+([0-9a-f]{64})", output)
    if mismatch:
        return _wrong_hash(mismatch[1])
    if "No matching distribution" in output or "from versions: none" in output:
        failure = "no index that pip is set up for served it"
    return (
        f"cannot fetch {PINNED_NAME} {PINNED_VERSION} with pip: {failure}; check the network and "
        "pip's index, or build the wheel elsewhere with --wheel-dir and pip install it here"
    )


def _wrong_hash(found: str) -> str:
    return (
        f"the {PINNED_NAME} {PINNED_VERSION} that was fetched has sha256 {found} where "
        f"{PINNED_SHA256} is pinned, so nothing of it was used; check the index that pip uses"
    )
