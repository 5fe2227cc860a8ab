"""A LazyConfig of ours beside a yaml config of Detectron2: what each builds, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetMapper
from detectron2.solver import LRMultiplier, build_lr_scheduler, build_optimizer
from omegaconf import DictConfig
from torch import nn

from ssl_backbones.engine.schedule import lr_multiplier

ABSENT = "(absent)"


def assert_same_run(ours: DictConfig, theirs: CfgNode, model: nn.Module) -> None:
    """The config builds Detectron2's `model` of the yaml config, feeds and trains it as that one does."""
    differing = differences(parts(ours), parts_of_yaml(theirs, model))
    assert not differing, differing


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(ours, theirs) by name, where they differ."""
    names = {**ours, **theirs}
    pairs = {name: (ours.get(name, ABSENT), theirs.get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def parts(cfg: DictConfig) -> dict[str, Any]:
    """Everything that a run of ours computes with, by name."""
    optimizer = _optimizer(cfg)
    max_iter = cfg.train.max_iter
    mappers = (instantiate(cfg.dataloader[split].mapper) for split in ("train", "test"))
    names = (cfg.dataloader[split].dataset.names for split in ("train", "test"))
    return {
        **_model(instantiate(cfg.model)),
        **_data(*mappers, *([name] if isinstance(name, str) else list(name) for name in names)),
        "min_keypoints": cfg.dataloader.train.dataset.get("min_keypoints", 0),
        "filter_empty": cfg.dataloader.train.dataset.get("filter_empty", True),
        "batch": cfg.dataloader.train.total_batch_size,
        "max_iter": max_iter,
        "eval_period": cfg.train.eval_period,
        "precise_bn": dict(cfg.train.precise_bn),
        "clip": cfg.train.clip.norm is not None or cfg.train.clip.value is not None,
        "amp": cfg.train.amp.enabled,
        **_solver(optimizer, LRMultiplier(optimizer, lr_multiplier(cfg), max_iter), max_iter),
    }


def parts_of_yaml(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """The same of what Detectron2's own trainer makes of a yaml config."""
    optimizer = build_optimizer(cfg, _layers())
    max_iter = cfg.SOLVER.MAX_ITER
    mappers = (DatasetMapper(cfg, is_train) for is_train in (True, False))
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    return {
        **_model(model),
        **_data(*mappers, list(cfg.DATASETS.TRAIN), list(cfg.DATASETS.TEST)),
        "min_keypoints": keypoints if cfg.MODEL.KEYPOINT_ON else 0,
        "filter_empty": cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "max_iter": max_iter,
        "eval_period": cfg.TEST.EVAL_PERIOD,
        "precise_bn": {
            "enabled": cfg.TEST.PRECISE_BN.ENABLED,
            "num_iter": cfg.TEST.PRECISE_BN.NUM_ITER,
        },
        "clip": cfg.SOLVER.CLIP_GRADIENTS.ENABLED,
        "amp": cfg.SOLVER.AMP.ENABLED,
        **_solver(optimizer, build_lr_scheduler(cfg, optimizer), max_iter),
    }


def settings_of(model: nn.Module) -> dict[str, Any]:
    """What a model computes with besides its tensors: thresholds, numbers of detections, scales.

    Taken from the public attributes of its modules, so that it does not matter which config built them. What
    depends on the number of processes alone (the kind of synchronised batch norm) is not in it.
    """
    found = {name: _settings(vars(module)) for name, module in model.named_modules()}
    return {name: settings for name, settings in found.items() if settings}


def _settings(thing: Any, depth: int = 3) -> Any:
    """The numbers, words and flags in `thing`; None if there are none."""
    if isinstance(thing, bool | int | float | str):
        return repr(thing)
    if depth == 0 or isinstance(thing, torch.Tensor | nn.Module | type):
        return None
    if isinstance(thing, Sequence):
        return [_settings(item, depth - 1) for item in thing] or None
    if not isinstance(thing, Mapping):
        thing = getattr(thing, "__dict__", {})
    items = {str(key): _settings(value, depth - 1) for key, value in thing.items()}
    # Whatever starts with an underscore is a module's own affair; `training` is what evaluation turns off.
    return {
        key: value
        for key, value in items.items()
        if value is not None and not key.startswith("_") and key != "training"
    } or None


def _model(model: nn.Module) -> dict[str, Any]:
    modules = {f"module {name}": type(module).__name__ for name, module in model.named_modules()}
    # Ours is known to compute the same: tests/modeling/test_extra_norm.py.
    modules["module roi_heads"] = modules["module roi_heads"].removesuffix("ExtraNorm")
    tensors = model.named_parameters(), model.named_buffers()
    shapes = {
        f"tensor {name}": (tuple(tensor.shape), tensor.requires_grad)
        for named in tensors
        for name, tensor in named
    }
    settings = {f"settings {name}": _numbers(found) for name, found in settings_of(model).items()}
    statistics = {
        name: getattr(model, name).flatten().tolist() for name in ("pixel_mean", "pixel_std")
    }
    return {**modules, **shapes, **settings, **statistics}


def _data(train: DatasetMapper, test: DatasetMapper, train_names, test_names) -> dict[str, Any]:
    found = {"train datasets": train_names, "test datasets": test_names}
    # What a test mapper would do with annotations does not matter: it gives none.
    own = ("image_format", "is_train")
    annotations = ("use_instance_mask", "instance_mask_format", "use_keypoint", "recompute_boxes")
    for split, mapper, names in (("train", train, own + annotations), ("test", test, own)):
        found |= {f"{split} {name}": getattr(mapper, name) for name in names}
        found[f"{split} augmentations"] = [
            (type(each).__name__, _augmentation(vars(each))) for each in mapper.augmentations.augs
        ]
    flips = train.keypoint_hflip_indices
    return {**found, "keypoint flips": None if flips is None else list(map(int, flips))}


def _numbers(value: Any) -> Any:
    """Settings with every number as a float, and without weights of losses that are 1, as they are anyway."""
    if isinstance(value, dict):
        named = {key: _numbers(item) for key, item in value.items()}
        return {k: v for k, v in named.items() if not (k.startswith("loss_") and v in (1.0, {}))}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _augmentation(options: dict[str, Any]) -> dict[str, Any]:
    """An augmentation's options; of one size it does not matter whether it is chosen or drawn."""
    found = {k: list(v) if isinstance(v, tuple | list) else v for k, v in options.items()}
    if len(set(found.get("short_edge_length", ()))) == 1:
        found.pop("is_range")
        found.pop("sample_style")
    return {key: value for key, value in found.items() if not key.startswith("_")}


def _layers() -> nn.Module:
    """One of each kind that an optimizer may treat otherwise."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))


def _optimizer(cfg: DictConfig) -> torch.optim.Optimizer:
    settings = cfg.optimizer.copy()
    settings.params.model = _layers()
    return instantiate(settings)


def _solver(optimizer: torch.optim.Optimizer, scheduler: LRMultiplier, max_iter: int) -> dict:
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
    groups = [
        tuple(p.shape) + tuple(group[name] for name in names)
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    # At the ends of the warm-up and around the steps of any schedule here, and between them.
    places = (0, 1, 50, 99, 100, 500, 999, 1000, *range(5999, max_iter, 2000))
    rates = {}
    for iteration in sorted({*places, *(place + 1 for place in places), max_iter - 1}):
        scheduler.last_epoch = iteration
        rates[iteration] = round(scheduler.get_lr()[0], 12)
    return {"optimizer": type(optimizer).__name__, "groups": sorted(groups), "rates": rates}
