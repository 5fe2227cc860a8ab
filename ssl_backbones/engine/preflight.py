"""Everything that can be known to be wrong before the first iteration, said in one line each.

`check` looks at the config alone, before any model is built. `run_card` describes the built model; together
with the loaded weights it is the table that stands at the head of every log.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling.backbone import ResNet
from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

import ssl_backbones.data  # noqa: F401  registers the embedded datasets

from ..conversion.loading import provenance_of
from ..conversion.reading import read_checkpoint
from ..conversion.resnet import WIDTHS, config_line
from ..conversion.unpickling import shown
from ..errors import InputError
from ..modeling.freezing import count_parameters, parts
from ..modeling.norm import NormChoice
from ..modeling.resnet import build_resnet
from ..weights import resolve
from .launch import World


def check(cfg: DictConfig, world: World, *, eval_only: bool = False) -> dict[str, Any]:
    """Refuse a config that cannot run as it says; no model is built.

    `cfg.train.init_checkpoint` is replaced by a local file: named weights are downloaded, raw
    self-supervised files are converted with proof.

    Returns:
        The provenance of the weights; {} where the file has none.

    Raises:
        InputError: the first thing found wrong.
    """
    _check_world(cfg, world)
    _check_numbers(cfg)
    _check_channel_order(cfg)
    for split in ("test",) if eval_only else ("train", "test"):
        _check_dataset(cfg, split)
    _check_output(cfg.train.output_dir)
    return _check_weights(cfg, eval_only)


def _check_world(cfg: DictConfig, world: World) -> None:
    if world.device == "cuda":
        if not torch.cuda.is_available():
            raise InputError(
                "train.device is cuda and this machine has no usable GPU; add train.device=cpu to run on "
                "the CPU"
            )
        if world.processes > torch.cuda.device_count():
            raise InputError(
                f"--num-gpus {world.processes}: this machine has {torch.cuda.device_count()}; lower it"
            )
    if not 0 <= world.machine_rank < world.machines:
        raise InputError(
            f"--machine-rank {world.machine_rank} of --num-machines {world.machines}: ranks count from 0"
        )
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if batch is not None and (batch < 1 or batch % world.size):
        raise InputError(
            f"dataloader.train.total_batch_size={batch} does not divide among {world.size} processes; make "
            "it a multiple, or change their number"
        )


def _check_numbers(cfg: DictConfig) -> None:
    """Values that would train, but not what anybody meant."""
    bounds = {
        "train.max_iter": 1,
        "train.log_period": 1,
        "train.eval_period": 0,
        "train.checkpointer.period": 1,
    }
    for key, least in bounds.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value < least:
            raise InputError(f"{key}={value}: must be at least {least}")
    rate = OmegaConf.select(cfg, "optimizer.lr")
    if rate is not None and rate <= 0:
        raise InputError(f"optimizer.lr={rate}: must be above 0")
    if cfg.train.device == "cpu" and OmegaConf.select(cfg, "train.amp.enabled"):
        raise InputError("train.amp.enabled=true needs a GPU; turn it off with train.device=cpu")


def _check_channel_order(cfg: DictConfig) -> None:
    """Model and both mappers must read the same channel order, with statistics in that order."""
    formats = {
        key: OmegaConf.select(cfg, key)
        for key in (
            "model.input_format",
            "dataloader.train.mapper.image_format",
            "dataloader.test.mapper.image_format",
        )
    }
    formats = {key: value for key, value in formats.items() if value is not None}
    if len(set(formats.values())) > 1:
        stated = ", ".join(f"{key}={value}" for key, value in formats.items())
        raise InputError(
            f"channel order disagrees: {stated}; all must be the one of the pretraining"
        )
    mean = OmegaConf.select(cfg, "model.pixel_mean")
    order = formats.get("model.input_format")
    # ImageNet's mean falls from red to blue: in the other order it betrays itself.
    if mean is not None and len(mean) == 3 and order in ("RGB", "BGR"):
        falls = mean[0] > mean[2]
        if mean[0] != mean[2] and falls != (order == "RGB"):
            raise InputError(
                f"model.pixel_mean={list(mean)} is in the reverse of model.input_format={order}; set both "
                "from one place, as configs/common/data.py does"
            )


def _check_dataset(cfg: DictConfig, split: str) -> None:
    names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names")
    if names is None:
        return
    for name in [names] if isinstance(names, str) else names:
        if name not in DatasetCatalog.list():
            known = ", ".join(
                n for n in DatasetCatalog.list() if n.startswith(("coco_2017", "digits"))
            )
            raise InputError(f"dataset {name!r} is not registered; there are {known} and more")
        metadata = MetadataCatalog.get(name)
        root = os.environ.get("DETECTRON2_DATASETS", "datasets")
        command = metadata.get("made_by")
        mend = (
            f"make it with `{command}`"
            if command
            else f"put it below {root}, or set DETECTRON2_DATASETS to where it is"
        )
        for what, path in (
            ("annotations", metadata.get("json_file")),
            ("images", metadata.get("image_root")),
        ):
            if path and not PathManager.exists(path):
                raise InputError(f"dataset {name!r}: its {what} are not at {path}; {mend}")
        _check_classes(cfg, name, metadata)


def _check_classes(cfg: DictConfig, name: str, metadata) -> None:
    classes, expected = (
        metadata.get("thing_classes"),
        OmegaConf.select(cfg, "model.roi_heads.num_classes"),
    )
    if classes and expected is not None and len(classes) != expected:
        raise InputError(
            f"dataset {name!r} has {len(classes)} classes and model.roi_heads.num_classes={expected}; set "
            f"model.roi_heads.num_classes={len(classes)}"
        )


def _check_output(folder: str) -> None:
    """The run folder can be made and written to."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to train.output_dir={folder}: {error.strerror or error}"
        ) from error


def _check_weights(cfg: DictConfig, eval_only: bool) -> dict[str, Any]:
    given = cfg.train.init_checkpoint or ""
    frozen = OmegaConf.select(cfg, "model.backbone.bottom_up.freeze_at", default=0)
    if not given:
        if eval_only:
            raise InputError("--eval-only needs weights: add train.init_checkpoint=FILE")
        if frozen:
            raise InputError(
                f"train.init_checkpoint is empty and model.backbone.bottom_up.freeze_at={frozen} would "
                "freeze random weights; training from scratch needs model.backbone.bottom_up.freeze_at=0"
            )
        return {}
    cfg.train.init_checkpoint = resolve(given)
    provenance = provenance_of(read_checkpoint(cfg.train.init_checkpoint))
    check_provenance(provenance, cfg)
    return provenance


def check_provenance(provenance: Mapping[str, Any], cfg: DictConfig) -> None:
    """Refuse weights that were trained on other inputs, or for another network, than the config says.

    Raises:
        InputError: naming both sides of the disagreement.
    """
    source = shown(str(provenance.get("source", "the checkpoint")))
    trained = provenance.get("input") or {}
    resnet = "model.backbone.bottom_up"
    block = f"{resnet}.stages" if OmegaConf.select(cfg, f"{resnet}.stages") else resnet
    pairs = (
        ("channel order", trained.get("format"), "model.input_format"),
        ("pixel mean", trained.get("pixel_mean"), "model.pixel_mean"),
        ("pixel standard deviation", trained.get("pixel_std"), "model.pixel_std"),
        ("stride in the 1x1 convolution", trained.get("stride_in_1x1"), f"{block}.stride_in_1x1"),
    )
    for what, theirs, key in pairs:
        ours = OmegaConf.select(cfg, key)
        ours = list(ours) if isinstance(ours, ListConfig) else ours
        if theirs is not None and ours is not None and theirs != ours:
            raise InputError(
                f"{what} disagrees: {source} was trained with {theirs}, the config has {key}={ours}; use "
                f"{key}={theirs} or other weights"
            )
    _check_architecture(provenance, source, OmegaConf.select(cfg, resnet))


def _check_architecture(provenance: Mapping[str, Any], source: str, bottom_up: Any) -> None:
    """Refuse weights of another ResNet than the config builds, with the values of both."""
    theirs = provenance.get("architecture") or {}
    ours = _architecture(bottom_up)
    differing = {
        name: theirs[name]
        for name in WIDTHS
        if name in theirs and name in ours and theirs[name] != ours[name]
    }
    if not differing:
        return
    built = ", ".join(f"{name}={ours[name]}" for name in differing)
    held = ", ".join(f"{name}={value}" for name, value in differing.items())
    raise InputError(
        f"architecture disagrees: {source} holds a {theirs.get('name', 'ResNet')} with {held}, the config "
        f"builds one with {built}; write {config_line(theirs)} into the config (build_resnet of "
        "ssl_backbones.modeling.resnet), or use other weights"
    )


def _architecture(bottom_up: Any) -> dict[str, Any]:
    """What a config's ResNet is, whether `build_resnet` makes it or Detectron2's own parts; {} if neither."""
    if not isinstance(bottom_up, DictConfig):
        return {}
    if _makes(bottom_up, build_resnet):
        defaults = inspect.signature(build_resnet).parameters
        return {name: bottom_up.get(name, defaults[name].default) for name in WIDTHS}
    stages = bottom_up.get("stages")
    if not isinstance(stages, DictConfig) or not _makes(stages, ResNet.make_default_stages):
        return {}
    # make_default_stages fixes all but the depth and what it hands on to the blocks.
    return {
        "depth": stages.get("depth"),
        "stem_channels": OmegaConf.select(bottom_up, "stem.out_channels", default=64),
        "res2_channels": 64 if stages.get("depth") < 50 else 256,
        "bottleneck_channels": 64,
        "groups": stages.get("num_groups", 1),
    }


def _makes(node: DictConfig, function: Any) -> bool:
    """Whether a lazy call is one of `function`; configs read from YAML have its name instead."""
    target = node.get("_target_")
    return (locate(target) if isinstance(target, str) else target) is function


def run_card(
    cfg: DictConfig,
    world: World,
    model: nn.Module,
    norm: NormChoice,
    provenance: Mapping[str, Any],
    weights: str,
) -> list[tuple[str, str]]:
    """The rows of the table at the head of a run: what it starts from, what it trains, on what, where to.

    Args:
        weights: what was loaded, in words.
    """
    rows = [("weights", weights)]
    if provenance:
        origin = "{source} (sha256 {source_sha256:.12}), {method}, converted {date} by {tool}"
        rows.append(("provenance", origin.format_map(_Known(provenance))))
    rows += [
        ("input", f"{cfg.model.get('input_format')}, mean {cfg.model.get('pixel_mean')}, std "
                  f"{cfg.model.get('pixel_std')}"),
        ("norm", f"{norm.name} for SyncBN ({norm.reason})"),
    ]  # fmt: skip
    for name, part in parts(model):
        frozen, trainable = count_parameters(part)
        state = (
            "frozen" if not trainable else "trains" if not frozen else f"{frozen:,} of them frozen"
        )
        rows.append((name, f"{frozen + trainable:,} parameters, {state}"))
    return rows + _schedule_rows(cfg, world)


def _schedule_rows(cfg: DictConfig, world: World) -> list[tuple[str, str]]:
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    scheduler = OmegaConf.select(cfg, "lr_multiplier.scheduler") or {}
    scale = cfg.train.max_iter / scheduler["num_updates"] if scheduler.get("num_updates") else None
    steps = (
        [round(step * scale) for step in scheduler.get("milestones", [])]
        if scale
        else "as configured"
    )
    return [
        ("batch", f"{batch} images an iteration, {world.size} process{'es' if world.size > 1 else ''}"),
        ("learning rate", f"{OmegaConf.select(cfg, 'optimizer.lr')}"),
        ("schedule", f"{cfg.train.max_iter:,} iterations, steps at {steps}, warm-up of "
                     f"{cfg.train.get('warmup_iters')}"),
        ("images", f"{OmegaConf.select(cfg, 'dataloader.train.dataset.names')}, tested on "
                   f"{OmegaConf.select(cfg, 'dataloader.test.dataset.names')}"),
        ("run folder", os.path.abspath(cfg.train.output_dir)),
    ]  # fmt: skip


def check_disk(folder: str, model: nn.Module) -> None:
    """Refuse to start where not even one checkpoint (weights and momentum in float32) fits.

    Raises:
        InputError: with the room there is and the room that is needed.
    """
    needed = 2 * 4 * sum(tensor.numel() for tensor in model.state_dict().values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} has {free / 2**20:,.0f} MiB free and one checkpoint needs about "
            f"{needed / 2**20:,.0f} MiB; free some space or set train.output_dir elsewhere"
        )


class _Known(dict):
    """Formats what a foreign provenance lacks as a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"
