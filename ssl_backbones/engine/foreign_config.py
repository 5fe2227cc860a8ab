"""A config out of a file that anybody may have written: it may make parts of models and loaders, no more."""

from __future__ import annotations

import json
from typing import Any

from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
from detectron2.modeling.backbone import ResNet
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ..conversion.unpickling import shown
from ..errors import InputError
from ..fast.annotations.packed_dataset import packed_detection_dataset
from ..modeling.resnet import build_resnet

MEND = "give the run's own config, if you trust it: --config-file FILE and its overrides"

_CLASSES = (
    "detectron2.data.dataset_mapper",
    "detectron2.data.samplers",
    "detectron2.data.transforms",
    "detectron2.layers",
    "detectron2.modeling",
    "fvcore.transforms",
    "ssl_backbones.data",
    "ssl_backbones.modeling",
    "torch.nn.modules",
)
"""Where the classes are from that a config inside a file may make: parts of models and of loaders."""
_FUNCTIONS = (
    build_detection_train_loader,
    get_detection_dataset_dicts,
    packed_detection_dataset,
    ResNet.make_default_stages,
    ResNet.make_stage,
    build_resnet,
)


def config_from_text(text: str, path: str) -> DictConfig:
    """The config inside a file, if it makes nothing but known parts of models and loaders.

    A config is a program: what it names is imported and called.

    Raises:
        InputError: it makes anything else.
    """
    try:
        content = _restored(json.loads(text), path)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: its config is not JSON; {MEND}") from error
    if not isinstance(content, dict) or not {"model", "dataloader", "train"} <= content.keys():
        raise InputError(f"{path} is damaged: its config lacks a part; {MEND}")
    return OmegaConf.create(content, flags={"allow_objects": True})


def _restored(node: Any, path: str) -> Any:
    """`node` with known classes and functions for their names; what is to be called must be one."""
    if isinstance(node, str):
        if "${" in node:
            raise InputError(f"the config in {path} is not resolved: {shown(node)}; {MEND}")
        return _known(node) or node
    if isinstance(node, list):
        return [_restored(item, path) for item in node]
    if not isinstance(node, dict):
        return node
    if "_target_" in node and _known(node["_target_"]) is None:
        name = shown(str(node["_target_"]))
        raise InputError(f"the config in {path} makes {name}, which is not run from a file; {MEND}")
    # As a name, since OmegaConf cannot hold a dataclass.
    return {k: v if k == "_target_" else _restored(v, path) for k, v in node.items()}


def _known(name: Any) -> Any:
    """What the name means, if that is known.

    The name is looked at before anything is imported, then what it means: modules hold what they import.
    """
    packages = (*_CLASSES, "detectron2.data.build")
    if not isinstance(name, str) or not name.startswith(tuple(f"{p}." for p in packages)):
        return None
    try:
        target = locate(name)
    except Exception:
        return None
    if isinstance(target, type):
        is_known = f"{target.__module__}.".startswith(tuple(f"{p}." for p in _CLASSES))
    else:
        is_known = any(target is function for function in _FUNCTIONS)
    return target if is_known else None
