"""What a run takes from its annotations: their form, their classes and their masks, as they are meant."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError
from ..fast.annotations.coco_json import collector_paused, parse_json
from ..fast.annotations.packed_cache import AnnotationCache
from ..fast.annotations.packed_dataset import is_registered_by
from .annotations.checking import Verdict, check_annotations, first_unlike

NUM_CLASSES = ("model.roi_heads.num_classes", "model.num_classes")
"""Where two-stage and one-stage detectors have their number of classes."""

_NAMED = 5
"""Of classes that are left out."""

_COPY = 1
"""Of a file with other categories: to be raised when the same arguments give other content."""


def dataset_names(cfg: DictConfig, role: str) -> list[str]:
    """The datasets that a config trains ("train") or tests ("test") on."""
    names = OmegaConf.select(cfg, f"dataloader.{role}.dataset.names")
    return [names] if isinstance(names, str) else list(names or ())


def learns_masks(cfg: DictConfig) -> bool:
    """Whether the model of a config has a mask head; Detectron2 asks for its features first."""
    keys = ("model.roi_heads.mask_in_features", "model.roi_heads.mask_head")
    return all(OmegaConf.select(cfg, key) is not None for key in keys)


def prepare(
    cfg: DictConfig,
    roles: Sequence[str] = ("train", "test"),
    given: Collection[str] | None = None,
    trained: Sequence[Mapping[str, Any]] | None = None,
) -> list[str]:
    """Check the datasets of `cfg` and let them be read as they are meant; the same in every process.

    A file that is not in COCO's own form is read from a copy that is. The classes are those of the first
    dataset, or what `train.classes` keeps of them, and those of the others are the same by name. Of a model
    of masks, data without any make a model of boxes, and masks in run lengths the mapper's format "bitmask".

    Args:
        given: the keys that the user has set, of a config that takes its number of classes from the data;
            None where it must have the right one already.
        trained: the categories that the weights were trained on, in the order of the model's classes, where
            nothing is trained now; None where they are not known.

    Returns:
        How the data is read and what is odd in it, a sentence each.

    Raises:
        InputError: the first thing found wrong.
    """
    masks = learns_masks(cfg)
    verdicts: dict[str, Verdict] = {}
    for role in roles:
        for name in dataset_names(cfg, role):
            if name not in DatasetCatalog.list():
                continue
            verdict = check_annotations(name, evaluated=role == "test", masks=masks)
            if verdict is not None and is_registered_by(register_coco_instances, name):
                verdicts[name] = verdict
    if _chosen(cfg) and not verdicts:
        raise InputError(
            f"train.classes={_chosen(cfg)}: classes can be chosen of data in COCO's format alone, and this "
            "config has none"
        )
    if not verdicts:
        return []
    first = next(iter(verdicts))
    wanted = list(trained or wanted_categories(cfg, first, verdicts[first]))
    like = "the training data" if trained else _where(first)
    for name, verdict in verdicts.items():
        _settle_categories(name, verdict, wanted, like, chosen=bool(_chosen(cfg)))
    _settle_num_classes(cfg, first, verdicts[first], [one["name"] for one in wanted], given)
    if masks:
        _settle_masks(cfg, verdicts, roles)
    elif "mask_in_features" in (OmegaConf.select(cfg, "model.roi_heads") or ()):
        trained_on = [verdicts[n] for n in dataset_names(cfg, "train") if n in verdicts]
        if any(0 < v.counts["with_masks"] < v.counts["objects"] for v in trained_on):
            # Detectron2's mapper would make masks of all objects or of none.
            _read_no_masks(cfg)
    _settle_points(cfg, verdicts)
    sentences = []
    for name, verdict in verdicts.items():
        metadata = MetadataCatalog.get(name)
        metadata.__dict__["counts"] = verdict.counts
        said = (*metadata.get("said", ()), *verdict.warnings)
        sentences += [f"Dataset {name!r}: {sentence}" for sentence in said]
    return sentences


def wanted_categories(cfg: DictConfig, name: str, verdict: Verdict) -> list[dict[str, Any]]:
    """The categories of the first dataset that are kept, in the order of the model's classes.

    Raises:
        InputError: `train.classes` names none of them, or one twice; or data.yaml lists others.
    """
    chosen = _chosen(cfg)
    listed = MetadataCatalog.get(name).get("listed")
    if listed and sorted(listed) != sorted(verdict.names):
        difference = first_difference(
            "its data.yaml", sorted(listed), "the annotations", sorted(verdict.names)
        )
        raise InputError(
            f"{_where(name)}: in alphabetical order {difference}; let both have the same names"
        )
    if not chosen:
        # Of a run that is found again: what it had.
        return MetadataCatalog.get(name).get("wanted") or verdict.categories
    by_name = {category["name"]: category for category in verdict.categories}
    for one in chosen:
        if one not in by_name:
            raise InputError(
                f"{_where(name)} has no class {one!r} to keep; there are {', '.join(by_name)}"
            )
        if chosen.count(one) > 1:
            raise InputError(f"the class {one!r} is to be kept twice: name each class once")
    kept = [by_name[one] for one in chosen]
    ids = [category["id"] for category in kept]
    # Detectron2 numbers classes by ascending id.
    if ids == sorted(ids):
        return kept
    return [{"id": number, "name": one} for number, one in enumerate(chosen, 1)]


def _chosen(cfg: DictConfig) -> list[str]:
    """The names in `train.classes`; in an override, a class that is a number is one."""
    classes = cfg.train.classes
    if classes is None or isinstance(classes, str | int | float):
        return [] if classes in (None, "") else [one.strip() for one in str(classes).split(",")]
    return list(map(str, classes))


def _settle_categories(
    name: str,
    verdict: Verdict,
    wanted: Sequence[Mapping[str, Any]],
    like: str,
    *,
    chosen: bool,
) -> None:
    """Let the dataset have these classes, by name, and be read from a file in COCO's own form."""
    names, own = [category["name"] for category in wanted], verdict.names
    path, categories, said = verdict.path, verdict.categories, list(verdict.changes)
    if names != own:
        surplus = [one for one in own if one not in names]
        missing = [one for one in names if one not in own]
        difference = first_difference("that", names, "this", own)
        # A split may list only the classes of which it has objects.
        if (surplus or len(missing) == len(names)) and not chosen:
            raise InputError(
                f"{_where(name)} has other classes than {like}: {difference}; give data with the same names, "
                "or choose classes that both have by train.classes"
            )
        if len(missing) == len(names):
            raise InputError(f"{_where(name)} has none of the classes {', '.join(names)} to keep")
        path, left_out = with_categories(verdict, wanted)
        categories = list(wanted)
        if surplus:
            counts = [f"{left_out[one]} of {one}" for one in surplus[:_NAMED]]
            if more := surplus[_NAMED:]:
                counts.append(f"{sum(left_out[one] for one in more)} of {len(more)} other classes")
            said.append(
                f"the classes {', '.join(names)} are kept; objects left out: {', '.join(counts)}"
            )
        elif not chosen:
            said.append(f"its classes are read by name, in the order of {like}: {difference}")
    metadata = MetadataCatalog.get(name)
    numbers = {category["id"]: number for number, category in enumerate(categories)}
    # Set by whoever registered it, or by the record of a run that had other ids.
    known = metadata.get("thing_dataset_id_to_contiguous_id")
    is_named = metadata.get("thing_classes") or not metadata.get("own")
    if path != metadata.json_file or not is_named or known not in (None, numbers):
        _read_instead(name, path, categories, said)


def with_categories(
    verdict: Verdict, wanted: Sequence[Mapping[str, Any]]
) -> tuple[str, Counter[str]]:
    """A copy of a file in the cache folder with these categories, by name.

    Returns:
        Where it is, and how many objects of other classes were left out, by class.
    """
    with collector_paused():
        content, left_out = in_categories(parse_json(Path(verdict.path).read_bytes()), wanted)
        text = json.dumps(content)
    path = AnnotationCache().keep_copy(verdict.sha256, _COPY, text)
    return os.fspath(path), left_out


def in_categories(
    content: dict[str, Any], wanted: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], Counter[str]]:
    """A file's content with these categories, by name.

    Returns:
        That, and how many objects of other classes were left out, by class.
    """
    names = {category["id"]: category["name"] for category in content["categories"]}
    others = {category["name"]: category for category in content["categories"]}
    ids = {category["name"]: category["id"] for category in wanted}
    left_out: Counter[str] = Counter()
    kept = []
    for annotation in content.get("annotations", ()):
        # One of an image that is not in the file may have any category.
        name = names.get(annotation["category_id"])
        if name in ids:
            kept.append({**annotation, "category_id": ids[name]})
        elif name is not None and not annotation["iscrowd"]:
            left_out[name] += 1
    categories = [{**others.get(one["name"], {}), **one} for one in wanted]
    changed = {**content, "categories": categories}
    if "annotations" in content:
        changed["annotations"] = kept
    return changed, left_out


def _settle_num_classes(
    cfg: DictConfig, name: str, verdict: Verdict, names: list[str], given: Collection[str] | None
) -> None:
    key = next((key for key in NUM_CLASSES if OmegaConf.select(cfg, key) is not None), None)
    if key is None:
        return
    stated = OmegaConf.select(cfg, key)
    if given is not None and key not in given:
        OmegaConf.update(cfg, key, len(names))
    elif stated != len(names):
        empty = [one for one in names if not verdict.counts["by_class"].get(one)]
        remark = f"; no object is of {', '.join(empty[:5])}" if empty else ""
        raise InputError(
            f"{_where(name)} has {len(names)} classes ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}{remark}) and {key}={stated}; set {key}={len(names)}"
        )


def _settle_masks(cfg: DictConfig, verdicts: Mapping[str, Verdict], roles: Sequence[str]) -> None:
    """Make of a model of masks what the objects have masks for."""
    train, test = (
        {
            name: verdicts[name].counts
            for name in dataset_names(cfg, role)
            # A test set without labels has no objects, and no lack of masks.
            if role in roles and name in verdicts and verdicts[name].counts["objects"]
        }
        for role in ("train", "test")
    )
    mapper = OmegaConf.select(cfg, "dataloader.train.mapper")
    bare = [name for name, counts in train.items() if not counts["with_masks"]]
    if bare and len(bare) < len(train):
        other = next(name for name in train if name not in bare)
        raise InputError(
            f"{_where(bare[0])} has no masks and {_where(other)} has: give both masks, or train boxes alone"
        )
    if bare:
        for key in [key for key in cfg.model.roi_heads if key.startswith("mask_")]:
            cfg.model.roi_heads.pop(key)
        _read_no_masks(cfg)
        _say(bare[0], "its objects have no masks: the model learns boxes alone")
        return
    evaluator = OmegaConf.select(cfg, "dataloader.evaluator")
    evaluates_all = isinstance(evaluator, DictConfig) and evaluator.get("tasks") is None
    if test and evaluates_all and not any(counts["with_masks"] for counts in test.values()):
        evaluator.tasks = ["bbox"]
        _say(next(iter(test)), "its objects have no masks: boxes alone are evaluated")
    run_lengths = sum(counts["run_lengths"] for counts in train.values())
    form = mapper.get("instance_mask_format") if mapper is not None else None
    if not (run_lengths and mapper is not None and mapper.get("use_instance_mask")):
        return
    if form == "polygon":
        raise InputError(
            f"{_where(next(iter(train)))}: {run_lengths} objects have masks in run lengths, which "
            "dataloader.train.mapper.instance_mask_format=polygon does not read: set it to bitmask"
        )
    if form is None:
        mapper.instance_mask_format = "bitmask"
        _say(
            next(iter(train)),
            f"{run_lengths} objects have masks in run lengths: masks are learnt as bitmaps "
            "(dataloader.train.mapper.instance_mask_format=bitmask)",
        )


def _settle_points(cfg: DictConfig, verdicts: Mapping[str, Verdict]) -> None:
    """Say that key points are not learnt, or refuse to learn those that are not there, or are others."""
    key = "model.roi_heads.keypoint_head.num_keypoints"
    learnt = OmegaConf.select(cfg, key)
    for name in dataset_names(cfg, "train"):
        counts = verdicts[name].counts if name in verdicts else {"objects": 0}
        if not counts["objects"]:
            continue
        if learnt is None and counts["with_points"]:
            _say(
                name,
                f"{counts['with_points']} objects have key points, which this recipe does not learn "
                "(projects/keypoints does)",
            )
        elif learnt is not None and counts["points"] != [learnt]:
            there = " and ".join(map(str, counts["points"])) or "no"
            raise InputError(
                f"{_where(name)} has {there} key points an object, and {key}={learnt}: give data with "
                f"{learnt}, or set that, dataloader.train.mapper.keypoint_hflip_indices and "
                "dataloader.evaluator.kpt_oks_sigmas to what it has"
            )


def _read_no_masks(cfg: DictConfig) -> None:
    mapper = OmegaConf.select(cfg, "dataloader.train.mapper")
    if mapper is not None and mapper.get("use_instance_mask"):
        mapper.use_instance_mask = False


def _say(name: str, sentence: str) -> None:
    metadata = MetadataCatalog.get(name)
    said = list(metadata.get("said", ()))
    if sentence not in said:
        # What is set there once may not be set to something else.
        metadata.__dict__["said"] = [*said, sentence]


def first_difference(one: str, ours: Sequence[str], other: str, theirs: Sequence[str]) -> str:
    """Where two unlike lists of classes differ first, in words: "class 1 is 'box' in A and 'disc' in B"."""
    number, mine, its = first_unlike(ours, theirs)
    words = [
        f"{name!r} in {of}" if name else f"none in {of}" for name, of in ((mine, one), (its, other))
    ]
    return f"class {number} is {words[0]} and {words[1]}"


def _where(name: str) -> str:
    metadata = MetadataCatalog.get(name)
    source = metadata.get("origin", metadata.get("source_file", metadata.get("json_file")))
    return f"dataset {name!r} ({source})"


def _read_instead(
    name: str, path: str, categories: Sequence[Mapping[str, Any]], said: Sequence[str]
) -> None:
    """Let the dataset `name` be read from another file that says the same, with these categories."""
    metadata = MetadataCatalog.get(name).as_dict()
    facts = {key: value for key, value in metadata.items() if key not in _BY_REGISTRATION}
    facts.setdefault("source_file", metadata["json_file"])
    facts |= {
        "said": [*facts.get("said", ()), *said],
        "thing_classes": [category["name"] for category in categories],
        "thing_dataset_id_to_contiguous_id": {
            category["id"]: number for number, category in enumerate(categories)
        },
    }
    forget(name)
    register_coco_instances(name, facts, path, metadata["image_root"])


def forget(name: str) -> None:
    """Take a dataset out of Detectron2's catalogs."""
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


_BY_REGISTRATION = ("name", "json_file", "image_root", "evaluator_type")
