"""What is published of the packaged recipes, and in what a run differs from its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

from .content import Deviation, PublishedField

PROCESSES = 8
"""The published runs' (MMDetection's configs are for 8 GPUs with 2 images each)."""

TEST_SET, TEST_IMAGES = "coco_2017_val", 5000
"""COCO val2017, on which all of the published numbers are."""

_AUGMENTATIONS = "dataloader.{}.mapper.augmentations.0"
_SCALE = ("short_edge_length", "sample_style", "max_size")


@dataclass(frozen=True)
class Recipe:
    """A packaged recipe as it was published.

    Attributes:
        name: of the packaged config.
        config: the published one, in MMDetection's `configs/selfsup_pretrain`.
        ap: "bbox/AP" and "segm/AP" in percent, on COCO val2017.
        schedule: "1x" or "2x".
        weights: the name in `ssl_backbones.weights.NAMED_WEIGHTS` of what it starts from.
    """

    name: str
    config: str
    ap: Mapping[str, float]
    schedule: str
    weights: str

    @property
    def source(self) -> str:
        return f"MMDetection configs/selfsup_pretrain, {self.config}, COCO val2017"


@dataclass(frozen=True)
class Field:
    """A property of the published recipes.

    Attributes:
        published: MMDetection's value in words.
        keys: of the config's fields that hold it; a list's items follow its key.
        schedule: of the recipes that it is of; "" for all.
    """

    name: str
    published: str
    keys: tuple[str, ...]
    schedule: str = ""


def _recipe(name: str, config: str, box: float, mask: float) -> Recipe:
    return Recipe(
        name,
        f"mask-rcnn_r50-{config}_coco",
        {"bbox/AP": box, "segm/AP": mask},
        schedule="2x" if name.endswith("2x") else "1x",
        weights="swav_800ep" if name.startswith("swav") else "moco_v2_800ep",
    )


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _recipe("moco_1x", "mocov2-pre_fpn_1x", 38.0, 34.3),
        _recipe("moco_ms2x", "mocov2-pre_fpn_ms-2x", 40.8, 36.8),
        _recipe("swav_1x", "swav-pre_fpn_1x", 39.1, 35.7),
        _recipe("swav_ms2x", "swav-pre_fpn_ms-2x", 41.3, 37.3),
    )
}

FIELDS = (
    Field(
        "backbone norm",
        "SyncBN, trainable affine, running statistics updated",
        ("model.backbone.bottom_up.stages.norm",),
    ),
    Field(
        "frozen",
        "frozen_stages=0: the stem and its norm",
        ("model.backbone.bottom_up.freeze_at",),
    ),
    Field(
        "input",
        "RGB, mean 123.675 116.28 103.53, std 58.395 57.12 57.375",
        (
            "model.input_format",
            "dataloader.train.mapper.image_format",
            "dataloader.test.mapper.image_format",
            "model.pixel_mean",
            "model.pixel_std",
        ),
    ),
    Field(
        "stride",
        "in the 3x3 convolution",
        ("model.backbone.bottom_up.stages.stride_in_1x1",),
    ),
    Field(
        "train scale, 1x",
        "800 / 1333",
        tuple(f"{_AUGMENTATIONS.format('train')}.{name}" for name in _SCALE),
        "1x",
    ),
    Field(
        "train scale, 2x",
        "short side uniform in 640..800, long side up to 1333",
        tuple(f"{_AUGMENTATIONS.format('train')}.{name}" for name in _SCALE),
        "2x",
    ),
    Field(
        "flip",
        "horizontal, 0.5",
        (
            "dataloader.train.mapper.augmentations.1._target_",
            "dataloader.train.mapper.augmentations.1.horizontal",
            "dataloader.train.mapper.augmentations.1.prob",
        ),
    ),
    Field(
        "test scale",
        "800 / 1333",
        tuple(f"{_AUGMENTATIONS.format('test')}.{name}" for name in _SCALE),
    ),
    Field(
        "batch, LR, momentum",
        "16, 0.02, 0.9",
        ("dataloader.train.total_batch_size", "optimizer.lr", "optimizer.momentum"),
    ),
    Field(
        "weight decay",
        "1e-4, on norm parameters too",
        ("optimizer.weight_decay", "optimizer.params.weight_decay_norm"),
    ),
    Field(
        "warm-up",
        "500 iterations from 0.001, linear",
        ("train.warmup_iters", "lr_multiplier.warmup_factor", "lr_multiplier.warmup_method"),
    ),
    Field(
        "1x",
        "12 epochs = 87,960 iterations, steps after 8 and 11 epochs",
        ("train.max_iter", "lr_multiplier.scheduler.milestones"),
        "1x",
    ),
    Field(
        "2x",
        "24 epochs = 175,920 iterations, steps after 16 and 22 epochs",
        ("train.max_iter", "lr_multiplier.scheduler.milestones"),
        "2x",
    ),
    Field(
        "FPN, RPN, heads",
        "no norm; 2000/1000 proposals; L1 losses; 0.05 score, 0.5 NMS, 100 detections",
        (
            "model.backbone.norm",
            "model.proposal_generator.pre_nms_topk",
            "model.proposal_generator.post_nms_topk",
            "model.roi_heads.box_head.conv_norm",
            "model.roi_heads.box_predictor.test_score_thresh",
            "model.roi_heads.box_predictor.test_nms_thresh",
            "model.roi_heads.box_predictor.test_topk_per_image",
        ),
    ),
)
"""MMDetection's selfsup_pretrain configs, field by field, beside Detectron2's names for them."""

_NO_PART = {
    "train.seed": "nobody publishes one",
    "train.eval_period": "only looks on",
    "train.eval_subset": "of evaluations during training",
    "train.best_metric": "chooses a checkpoint beside the final one",
    "train.ddp.*": "changes rounding alone",
}
"""Fields (patterns of fnmatch) in which a run may differ from its recipe and still be it, with reasons."""


def recipe_of(command_line: Sequence[Any]) -> Recipe | None:
    """The packaged recipe that a command line trains: by name, or by its file in a folder `configs`."""
    words = [str(word) for word in command_line]
    given = ""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == "--config-file":
            given = following
        elif word.startswith("--config-file="):
            given = word.partition("=")[2]
    path = PurePath(given)
    is_packaged = path.parent.name in ("", "configs") and path.suffix in ("", ".py")
    return RECIPES.get(path.stem) if is_packaged else None


def published_fields(recipe: Recipe, record: Mapping[str, Any]) -> list[PublishedField]:
    """Each published field beside what a run has.

    Args:
        record: the run's run.json.
    """
    here, weights = record["recipe"], record["weights"]
    words = [str(weights[name]) for name in ("source", "method", "branch") if weights.get(name)]
    started = " ".join(words) or str(here.get("weights", "not recorded"))
    fields = [PublishedField("weights", _weights_file(recipe), started)]
    for field in FIELDS:
        if field.schedule in ("", recipe.schedule):
            values = {key: value_of(here, key) for key in field.keys}
            known = [f"{key} = {value}" for key, value in values.items() if value is not None]
            text = "; ".join(known) or "as Detectron2 has it"
            fields.append(PublishedField(field.name, field.published, text))
    return fields


def value_of(fields: Mapping[str, Any], key: str) -> Any:
    """A field, or the list whose items are fields `key.0`, `key.1` and so on; None for neither."""
    if key in fields:
        return fields[key]
    items: list[Any] = []
    while f"{key}.{len(items)}" in fields:
        items.append(fields[f"{key}.{len(items)}"])
    return items or None


def deviations(
    recipe: Recipe, record: Mapping[str, Any], test_images: int | None = None
) -> list[Deviation]:
    """The fields that affect the result and are not as in the packaged config, by name.

    The published runs' number of processes is what `slots` is compared with.

    Args:
        record: the run's run.json.
        test_images: how many were evaluated, where it is known.
    """
    from .. import get_config
    from ..engine.recipe import compare
    from ..engine.recipe import recipe as fields_of

    packaged = fields_of(get_config(recipe.name), slots=PROCESSES)
    here = dict(record["recipe"])
    if _are_published(record["weights"], recipe):
        here["weights"] = packaged["weights"]
    if test_images is not None:
        packaged["test images"], here["test images"] = TEST_IMAGES, test_images
    return [
        Deviation(key, there, value)
        for key, there, value in compare(packaged, here)
        if not any(fnmatchcase(key, pattern) for pattern in _NO_PART)
    ]


def why_not_comparable(dataset: str, found: Sequence[Deviation]) -> str:
    """Why a published number is not of what a run measured; "" if it is of the same.

    Args:
        dataset: that the run was tested on.
        found: the run's deviations.
    """
    by_key = {deviation.key: deviation.run for deviation in found}
    reasons = []
    if dataset != TEST_SET:
        reasons.append(f"tested on {dataset or 'an unknown dataset'}")
    if (images := by_key.get("test images")) is not None:
        reasons.append(f"tested on {images:,} instead of {TEST_IMAGES:,} images")
    if (trained := by_key.get("dataloader.train.dataset.names")) is not None:
        reasons.append(f"trained on {trained}")
    if reasons:
        return f"not the same data: {', '.join(reasons)}"
    if not found:
        return ""
    return f"not the same recipe: {len(found)} field{'s' * (len(found) > 1)} differ{'s' * (len(found) == 1)}"


def _are_published(weights: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a provenance is that of the recipe's weights, of the network that their project evaluates."""
    from ..weights import NAMED_WEIGHTS

    is_file = weights.get("source") == _weights_file(recipe)
    is_method = weights.get("method") == NAMED_WEIGHTS[recipe.weights].method
    return is_file and is_method and weights.get("branch") != "momentum"


def _weights_file(recipe: Recipe) -> str:
    """The name under which their authors publish the weights."""
    from ..weights import NAMED_WEIGHTS

    return PurePath(NAMED_WEIGHTS[recipe.weights].url).name
