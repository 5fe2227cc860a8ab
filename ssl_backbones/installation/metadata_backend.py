"""Answers pip's question for a source archive's metadata in place of setuptools, and runs nothing.

pip asks before it hands an archive out, even if only to download it. Detectron2's own setup.py
would need torch for the answer, is code that was just downloaded, and names a dependency by its
URL, which newer pips refuse.
"""

from email.parser import HeaderParser
from pathlib import Path


class _Backend:
    """The build backend (PEP 517) that pip asks when a source archive names none."""

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        # pip runs this in the unpacked archive, whose PKG-INFO states the same facts.
        facts = HeaderParser().parsestr(Path("PKG-INFO").read_text(encoding="utf-8"))
        name, version = facts["Name"], facts["Version"]
        info = Path(metadata_directory, f"{name.replace('-', '_')}-{version}.dist-info")
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        return info.name


__legacy__ = _Backend()
