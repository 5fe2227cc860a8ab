"""An exported file in the place of what a config builds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError
from ..prediction.output import Classes
from . import elsewhere
from .elsewhere import Found


class ExportedDetector:
    """Finds the instances of images that `mapper` has prepared, as `prediction.detector.Detector` does.

    Raises:
        InputError: the file cannot be read or is no exported detector, or its graph fails on an image.
    """

    def __init__(self, path: str):
        self._path = path
        self._facts, self._run = _opened(path)
        self.classes = Classes(self._facts["classes"], self._facts["category_ids"])

    def mapper(self, record: Mapping[str, Any]) -> dict[str, Any]:
        image = elsewhere.read(record["file_name"])
        pixels, sizes = elsewhere.prepare(image, self._facts)
        return {**record, "pixels": pixels, "sizes": sizes}

    def __call__(self, images: Sequence[Mapping[str, Any]]) -> list[Instances]:
        return [as_instances(self._find(one), one) for one in images]

    def _find(self, image: Mapping[str, Any]) -> Found:
        try:
            found = self._run(image["pixels"], image["sizes"], self._facts["threshold"])
        except Exception as error:  # what a graph raises that is not of these facts
            raise _refusal(self._path, error) from error
        if len(found.classes) and found.classes.max() >= len(self.classes.names):
            raise _refusal(self._path, "it finds more classes than it names")
        return found


def _opened(path: str) -> tuple[dict[str, Any], Any]:
    try:
        facts, run = elsewhere.load(path)
    except Exception as error:  # what a graph's own loader raises
        raise _refusal(path, error) from error
    if fault := next(_faults(facts), None):
        raise _refusal(path, fault)
    return facts, run


def _refusal(path: str, why: object) -> InputError:
    short = textwrap.shorten(str(why), 160, placeholder=" ...")
    return InputError(
        f"{path} is damaged or no file of tools/export.py ({short}): export the run again"
    )


_LARGEST_SIDE = 20_000


def _faults(facts: Any) -> Iterator[str]:
    """What of a file's facts cannot be."""
    lists = {"classes": (str,), "category_ids": (int,), "mean": (int, float), "std": (int, float)}
    if not isinstance(facts, dict):
        yield "it says nothing of itself"
        return
    for name, kinds in lists.items():
        held = facts.get(name)
        if not isinstance(held, list) or not all(type(one) in kinds for one in held):
            yield f"its {name} are missing or of another kind"
            return
    if len(facts["classes"]) != len(facts["category_ids"]):
        yield "it has another number of classes than of their ids"
    if facts.get("order") not in ("RGB", "BGR") or {len(facts["mean"]), len(facts["std"])} != {3}:
        yield "it is of no images of three channels"
    fixed = facts.get("fixed", "missing")
    pair = fixed if isinstance(fixed, list) and len(fixed) == 2 else [fixed, fixed]
    sides = [facts.get("short"), facts.get("long"), *(pair if fixed is not None else ())]
    if not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in sides):
        yield "its size rule is none"
    if type(facts.get("threshold")) is not float:
        yield "its threshold is no number"


_MAY_BUILD = ("detectron2.modeling.", "detectron2.layers.", "detectron2.data.transforms.")
_MAY_BUILD += ("ssl_backbones.modeling.", "ssl_backbones.fast.")
"""Where what a file's config builds must be defined: a file may come from anywhere, and must not call all."""


def portable(cfg: DictConfig, device: str) -> dict[str, Any] | None:
    """What builds a model and prepares its images, in JSON's values; None where others would be built."""
    mapper = cfg.dataloader.test.mapper
    held = {
        "model": _plain(OmegaConf.to_container(cfg.model, resolve=True)),
        "dataloader": {"test": {"mapper": _plain(OmegaConf.to_container(mapper, resolve=True))}},
        "train": {"device": device, "strict_init": True, "init_checkpoint": ""},
    }
    return held if next(_others(held), None) is None else None


def _plain(value: Any) -> Any:
    if isinstance(value, ShapeSpec):
        return {"_target_": "detectron2.layers.shape_spec.ShapeSpec", **value._asdict()}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _others(value: Any) -> Iterator[str]:
    """What a config builds, or holds, that none of `_MAY_BUILD` defines."""
    if isinstance(value, dict):
        if "_target_" in value and not _may_build(value["_target_"]):
            yield str(value["_target_"])
        for one in value.values():
            yield from _others(one)
    elif isinstance(value, list):
        for one in value:
            yield from _others(one)
    elif not isinstance(value, int | float | str | None):
        yield repr(value)


def _may_build(target: object) -> bool:
    if not isinstance(target, str) or not target.startswith(_MAY_BUILD):
        return False
    try:
        found = locate(target)
    except ImportError:
        return False
    # By where it is defined: a module's name reaches all that the module imports.
    return callable(found) and str(getattr(found, "__module__", "")).startswith(_MAY_BUILD)


def config_of(path: str) -> tuple[DictConfig, Classes]:
    """The config of an exported .safetensors, and its classes.

    Raises:
        InputError: it is none, or its config would build what is not Detectron2's or this project's.
    """
    facts, _ = _opened(path)
    if not isinstance(facts.get("config"), dict):
        raise InputError(f"{path} has no config: give that of its run with --config-file")
    return config_in(facts), Classes(facts["classes"], facts["category_ids"])


def config_in(facts: Mapping[str, Any]) -> DictConfig:
    if other := next(_others(facts["config"]), None):
        raise InputError(
            f"an exported file's config builds {other}, which is no part of a detector of Detectron2's or of "
            "this project: give a config that you trust with --config-file"
        )
    return OmegaConf.create(facts["config"])


def as_instances(found: Found, record: Mapping[str, Any]) -> Instances:
    """Of an image of a record's "height" and "width"."""
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    if found.masks.size:
        instances.pred_masks = torch.from_numpy(found.masks)
    return instances
