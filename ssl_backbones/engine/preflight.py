"""Everything that can be known to be wrong before the first iteration, said in one line each.

`check` looks at the config alone, before any model is built.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..data import mend_of_missing
from ..data.annotations.checking import check_annotations
from ..data.annotations.splits import check_splits
from ..data.own_data import trained_categories
from ..data.preparing import dataset_names, learns_masks, prepare
from ..errors import InputError
from ..fast.annotations.packed_dataset import is_registered_by
from ..fast.evaluation.coco_evaluator import FastCOCOEvaluator
from ..lazy import target_of
from .checkpoints.checkpoint_folder import numbered, pointed_at
from .launching.world import World
from .provenance import check_weights
from .schedule import check_batch

AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def check(
    cfg: DictConfig, world: World, *, eval_only: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Refuse a config that cannot run as it says; no model is built.

    `cfg.train.init_checkpoint` is replaced by a local file: named weights are downloaded, raw
    self-supervised files are converted with proof.

    Returns:
        The provenance of the weights, {} where the file has none; and how the data is read, a sentence each.

    Raises:
        InputError: the first thing found wrong.
    """
    splits = ("test",) if eval_only else ("train", "test")
    _check_parts(cfg, splits)
    if not eval_only:
        check_batch(cfg, world.size)
    _check_numbers(cfg)
    check_channel_order(cfg)
    _check_best_metric(cfg)
    for split in splits:
        check_dataset(cfg, split)
    said = prepare_data(cfg, eval_only)
    if not eval_only:
        check_splits(*(dataset_names(cfg, split) for split in ("train", "test")))
    _check_output(cfg.train.output_dir)
    return check_weights(cfg, eval_only), said


def prepare_data(cfg: DictConfig, eval_only: bool) -> list[str]:
    """`prepare` for a run: of one that only evaluates, classes are those that its weights were trained on."""
    if eval_only:
        return prepare(cfg, ("test",), trained=trained_categories(cfg))
    return prepare(cfg)


def _check_parts(cfg: DictConfig, splits: Sequence[str]) -> None:
    """What every run needs: it ends with an evaluation. A loader may have its data from elsewhere."""
    for key in (*(f"dataloader.{split}" for split in splits), "dataloader.evaluator"):
        if OmegaConf.select(cfg, key) is None:
            raise InputError(
                f"the config has no {key}, without which nothing runs (a training ends with an evaluation): "
                "give one, as configs/common/data.py does"
            )
    for split in splits:
        dataset = OmegaConf.select(cfg, f"dataloader.{split}.dataset")
        if isinstance(dataset, DictConfig) and "names" in dataset and not dataset_names(cfg, split):
            raise InputError(f"dataloader.{split}.dataset.names is empty: give a dataset's name")


def _check_numbers(cfg: DictConfig) -> None:
    """Values that would train, but not what anybody meant."""
    bounds = {
        "train.max_iter": 1,
        "train.log_period": 1,
        "train.draw_batches": 0,
        "train.eval_period": 0,
        "train.checkpointer.period": 1,
        "train.checkpointer.max_to_keep": 1,
        "train.eval_subset": 0,
        "train.patience": 0,
        "train.precise_bn.num_iter": 1,
    }
    for key, least in bounds.items():
        value = OmegaConf.select(cfg, key)
        # None is no number: no limit, where that means anything.
        if value is not None and value < least:
            raise InputError(f"{key}={value}: must be at least {least}")
    for key in ("optimizer.lr", "train.clip.norm", "train.clip.value"):
        value = OmegaConf.select(cfg, key)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{key}={value}: must be above 0")
    if not 0 <= cfg.train.ema.decay < 1:
        raise InputError(f"train.ema.decay={cfg.train.ema.decay}: must be from 0 to below 1")
    if cfg.train.amp.get("dtype", "fp16") not in AMP_DTYPES:
        raise InputError(f"train.amp.dtype={cfg.train.amp.dtype}: is {' or '.join(AMP_DTYPES)}")
    if cfg.train.device == "cpu" and OmegaConf.select(cfg, "train.amp.enabled"):
        raise InputError("train.amp.enabled=true needs a GPU; turn it off with train.device=cpu")


def _check_best_metric(cfg: DictConfig) -> None:
    """Of COCO's evaluator the metrics are known; another one's name may be anything."""
    metric, evaluator = cfg.train.best_metric, OmegaConf.select(cfg, "dataloader.evaluator")
    kind = target_of(evaluator) if isinstance(evaluator, DictConfig) else None
    if not metric or kind not in (COCOEvaluator, FastCOCOEvaluator):
        return
    if not re.fullmatch(r"(ema/)?(bbox|segm|keypoints)/AP(50|75|s|m|l|-.+)?", metric):
        raise InputError(
            f"train.best_metric={metric} is no metric of COCO: give bbox/AP, segm/AP50, ema/bbox/AP or the "
            "like, or null for no model_best"
        )


def check_channel_order(cfg: DictConfig) -> None:
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


def check_dataset(cfg: DictConfig, split: str) -> None:
    for name in dataset_names(cfg, split):
        if name not in DatasetCatalog.list():
            raise InputError(
                f"dataset {name!r} is not registered, and no file or folder: give your own data by its path "
                "(--data PATH), or a registered name, such as coco_2017_train"
            )
        metadata = MetadataCatalog.get(name)
        for what, path in (
            ("annotations", metadata.get("json_file")),
            ("images", metadata.get("image_root")),
        ):
            if path and not PathManager.exists(path):
                if command := metadata.get("made_by"):
                    mend = f"make it with `{command}`"
                elif metadata.get("own"):
                    mend = "put them back, or say by --data PATH where the data is now"
                else:
                    mend = mend_of_missing(path)
                shown = metadata.get("origin", path) if what == "annotations" else path
                raise InputError(f"dataset {name!r}: its {what} are not at {shown}; {mend}")
        # What is in COCO's format is left to `prepare`, which asks its file.
        if not is_registered_by(register_coco_instances, name):
            _check_classes(cfg, name, metadata)
            check_annotations(name, evaluated=split == "test", masks=learns_masks(cfg))


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


def check_no_other_run(folder: str) -> None:
    """Refuse to start anew where the checkpoints of a run are: its own and theirs would be mixed up.

    Raises:
        InputError: there are some.
    """
    found = pointed_at(folder) or next(iter(numbered(folder)), None)
    if found:
        raise InputError(
            f"train.output_dir={folder} holds a run ({os.path.basename(found)}): add --resume to go on with "
            "it, or give another train.output_dir"
        )


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
