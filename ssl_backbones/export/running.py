"""An exported detector in the place of one that a config builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.structures import Instances

from ..errors import InputError
from ..prediction.output import Classes
from . import elsewhere
from .exporting import as_instances


class ExportedDetector:
    """Finds the instances of images that `mapper` has prepared, as `prediction.detector.Detector` does.

    Raises:
        InputError: the file cannot be read or is no exported detector.
    """

    def __init__(self, path: str):
        try:
            facts, self._run = elsewhere.load(path)
        except Exception as error:  # what a graph's own loader raises
            why = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path} cannot be run ({why}); give a file of tools/export.py"
            ) from error
        self._facts = facts
        self.classes = Classes(list(facts["classes"]), list(facts["category_ids"]))

    def mapper(self, record: Mapping[str, Any]) -> dict[str, Any]:
        image = elsewhere.read(record["file_name"])
        pixels, sizes = elsewhere.prepare(image, self._facts)
        return {**record, "pixels": pixels, "sizes": sizes}

    def __call__(self, images: Sequence[Mapping[str, Any]]) -> list[Instances]:
        least = self._facts["threshold"]
        return [as_instances(self._run(one["pixels"], one["sizes"], least), one) for one in images]


def config_of(path: str) -> str:
    """The config of an exported .safetensors, as YAML.

    Raises:
        InputError: it is none.
    """
    try:
        return str(elsewhere.facts_of(path)["config"])
    except Exception as error:  # what its reader raises
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{path} has no config ({why}); give --config-file") from error
