"""What is published of the packaged recipes, and in what a run differs from its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ... import configs_folder
from ...engine.recipe import ABSENT
from ...fidelity.protocols import PROCESSES, protocols
from ..content import Deviation, PublishedField, RecipeDifference, RunContent
from .runs import changed_fields

if TYPE_CHECKING:
    from ...fidelity.rows import Row

TEST_SET, TEST_IMAGES = "coco_2017_val", 5000
"""COCO val2017, on which all of the published numbers are."""


@dataclass(frozen=True)
class Recipe:
    """A packaged recipe as it was published.

    Attributes:
        name: of the packaged config.
        config: the published one, in MMDetection's `configs/selfsup_pretrain`.
        ap: "bbox/AP" and "segm/AP" in percent, on COCO val2017.
        weights: the name in `ssl_backbones.weights.resolution.NAMED_WEIGHTS` of what it starts from.
    """

    name: str
    config: str
    ap: Mapping[str, float]
    weights: str

    @property
    def source(self) -> str:
        return f"MMDetection configs/selfsup_pretrain, {self.config}, COCO val2017"


_PRETRAININGS = {
    "moco": ("MoCo v2, 800 epochs", "moco_v2_800ep"),
    "swav": ("SwAV, 800 epochs", "swav_800ep"),
}
"""By how the name of a recipe begins, what the protocols call the pretraining, and its weights."""


def _recipe(name: str, config: str) -> Recipe:
    method, schedule = name.split("_")
    pretraining, weights = _PRETRAININGS[method]
    ap = {one.pretraining: one.metrics for one in protocols()[f"mmdet_{schedule}"].published}
    return Recipe(name, f"mask-rcnn_r50-{config}_coco", ap[pretraining], weights)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _recipe("moco_1x", "mocov2-pre_fpn_1x"),
        _recipe("moco_ms2x", "mocov2-pre_fpn_ms-2x"),
        _recipe("swav_1x", "swav-pre_fpn_1x"),
        _recipe("swav_ms2x", "swav-pre_fpn_ms-2x"),
    )
}

_AS_STOCK = "as Detectron2 has it"

_DATA = (
    "test images",
    "dataloader.train.dataset.names",
    "dataloader.test.dataset.names",
    "dataloader.evaluator.dataset_name",
)
"""Fields that say on which data a run was trained and tested."""

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
    """Each published field that a config can hold, beside what a run has.

    Args:
        record: the run's run.json.
    """
    from ...fidelity.rows import BUILT, format_value

    here = {**record["recipe"], "weights": _started(record)}
    found = []
    for row in _rows(recipe.name):
        # Options that only this project's trainer has are in no published recipe.
        if row.keys and not row.keys[0].startswith(BUILT) and row.source != "trainer":
            values = (value_of(here, key) for key in row.keys)
            words = dict.fromkeys(_AS_STOCK if v is ABSENT else format_value(v) for v in values)
            published = row.wording or format_value(row.published)
            found.append(PublishedField(row.field, published, "; ".join(words), row.keys))
    return found


def recipe_differences(recipe: Recipe) -> list[RecipeDifference]:
    """In what the packaged config, run on Detectron2, is not the published recipe."""
    from ...fidelity.rows import format_value

    return [
        RecipeDifference(
            row.field,
            row.wording or format_value(row.published),
            format_value(row.ours),
            row.reason,
        )
        for row in _rows(recipe.name)
        if row.differs
    ]


@cache
def _rows(name: str) -> list[Row]:
    """What is known of the fields of a packaged config."""
    from ...fidelity.rows import read

    return read(configs_folder() / "fidelity.yaml").rows_of(name)


def _started(record: Mapping[str, Any]) -> str:
    """What a run started from: its weights' file and network, as far as they are known."""
    weights = record["weights"]
    words = [str(weights[name]) for name in ("source", "method", "branch") if weights.get(name)]
    return " ".join(words) or str(record["recipe"].get("weights", "not recorded"))


def value_of(fields: Mapping[str, Any], key: str) -> Any:
    """A field, or the list or mapping whose items are fields `key.0` or `key.name`; `ABSENT` for neither."""
    if key in fields:
        return fields[key]
    prefix = f"{key}."
    inside = {k.removeprefix(prefix): v for k, v in fields.items() if k.startswith(prefix)}
    names = dict.fromkeys(k.partition(".")[0] for k in inside)
    if not names:
        return ABSENT
    items = {name: value_of(inside, name) for name in names}
    return list(items.values()) if all(name.isdigit() for name in names) else items


def deviations(
    recipe: Recipe, record: Mapping[str, Any], test_images: int | None = None
) -> list[Deviation]:
    """The fields that affect the result and are not as in the packaged config, by name.

    The published runs' number of processes is what `slots` is compared with.

    Args:
        record: the run's run.json.
        test_images: how many were evaluated, where it is known.
    """
    from ... import get_config
    from ...engine.recipe import compare
    from ...engine.recipe import recipe as fields_of

    packaged = fields_of(get_config(recipe.name), slots=PROCESSES)
    here = dict(record["recipe"])
    if _are_published(record["weights"], recipe):
        here["weights"] = packaged["weights"]
    if test_images is not None:
        packaged["test images"], here["test images"] = TEST_IMAGES, test_images
    return [
        Deviation(key, there, value)
        for key, there, value in compare(packaged, here)
        if not _is_no_part(key)
    ]


def _is_no_part(key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in _NO_PART)


def why_not_comparable(run: RunContent) -> str:
    """Why the published number of a run's recipe is not of what the run measured; "" if it is of the same."""
    reasons = {
        "data": _other_data(run),
        "recipe": _other_recipe(run),
        "training": _other_training(run),
        "evaluation": [run.kind_of_evaluation] if run.kind_of_evaluation else [],
    }
    return "; ".join(f"not the same {of}: {', '.join(why)}" for of, why in reasons.items() if why)


def _other_data(run: RunContent) -> list[str]:
    by_key = {deviation.key: deviation.run for deviation in run.deviations}
    reasons = []
    if run.dataset != TEST_SET:
        reasons.append(f"tested on {run.dataset or 'an unknown dataset'}")
    if (images := by_key.get("test images")) is not None:
        reasons.append(f"tested on {images:,} instead of {TEST_IMAGES:,} images")
    if (trained := by_key.get("dataloader.train.dataset.names")) is not None:
        reasons.append(f"trained on {trained}")
    return reasons


def _other_recipe(run: RunContent) -> list[str]:
    count = sum(deviation.key not in _DATA for deviation in run.deviations)
    return [f"{count} field{'s' * (count > 1)} differ{'s' * (count == 1)}"] if count else []


def _other_training(run: RunContent) -> list[str]:
    """What happened in a training so that its recipe does not tell all of it."""
    reasons = []
    changed = dict.fromkeys(
        key
        for start in run.record.get("starts", ())
        for key in changed_fields(start)
        if not _is_no_part(key)
    )
    if changed:
        reasons.append(f"resumed with other values of {', '.join(changed)}")
    if run.iterations is None:
        reasons.append("it is not known how many iterations it did")
    elif run.iterations[0] < run.iterations[1]:
        done, planned = run.iterations
        reasons.append(f"did {done:,} of {planned:,} iterations")
    return reasons


def _are_published(weights: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a provenance is that of the recipe's weights, of the network that their project evaluates."""
    from ...weights.resolution import NAMED_WEIGHTS

    is_file = weights.get("source") == _weights_file(recipe)
    is_method = weights.get("method") == NAMED_WEIGHTS[recipe.weights].method
    return is_file and is_method and weights.get("branch") != "momentum"


def _weights_file(recipe: Recipe) -> str:
    """The name under which their authors publish the weights."""
    from ...weights.resolution import NAMED_WEIGHTS

    return NAMED_WEIGHTS[recipe.weights].file_name
