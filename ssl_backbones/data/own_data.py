"""Data of one's own: a path where a dataset's name is wanted, and what a run takes from its annotations.

`train.data` (`--data`) and any path in `dataloader.*.dataset.names` are registered with Detectron2 under a
name; RUN/run_data.json keeps where the data of a run lies, so that other commands find it again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError
from ..fast.annotations.packed_cache import AnnotationCache
from ..fast.annotations.packed_dataset import is_registered_by
from ..files import write_atomically
from ..hashing import fingerprint_of
from .annotations.checking import check_annotations, verdict_of
from .folders import FoundData, find_splits
from .preparing import dataset_names, forget, wanted_categories

logger = logging.getLogger(__name__)

RECORD = "run_data.json"
"""In a run folder: where its datasets lie, the hash of their annotations, and their classes."""

_BUILTIN = frozenset(DatasetCatalog.list())
"""What is registered before any config is loaded."""

_SPLITS = {"train": ("train",), "test": ("val", "test", "train")}


# From a path to a registered dataset


def name_own_data(
    cfg: DictConfig,
    given: Collection[str],
    *,
    eval_only: bool = False,
    known: bool = False,
    run: Path | None = None,
) -> bool:
    """Register the data that `cfg` names by paths, and put the datasets' names in the paths' place.

    Args:
        given: the keys that the user has set; `train.data` leaves them alone.
        eval_only: nothing is trained, so that there need not be anything to train on.
        known: the config is of a run, and has the names of what `train.data` stood for.
        run: the folder of the run that the config is of.

    Returns:
        Whether there were any paths.

    Raises:
        InputError: no data was recognised at a path.
    """
    found = None
    if cfg.train.data and not known:
        cfg.train.data = os.path.abspath(os.path.expanduser(cfg.train.data))
        found = _find(cfg, given, eval_only, run)
        logger.info(f"{cfg.train.data}: {found.form}")
    own = False
    for role in _SPLITS:
        key = f"dataloader.{role}.dataset.names"
        if OmegaConf.select(cfg, f"dataloader.{role}.dataset") is None:
            continue
        if found is not None and key not in given:
            if role == "train" and eval_only and "train" not in found.splits:
                OmegaConf.update(cfg, key, [])
                continue
            OmegaConf.update(cfg, key, _register_split(found, role, cfg.train.data))
            own = True
            continue
        names = dataset_names(cfg, role)
        paths = [name for name in names if _is_path(name)]
        if paths:
            taken = [
                _register_split(find_splits(name), role, name) if name in paths else name
                for name in names
            ]
            OmegaConf.update(cfg, key, taken[0] if len(taken) == 1 else taken, force_add=True)
            own = True
    return own


def _find(cfg: DictConfig, given: Collection[str], eval_only: bool, run: Path | None) -> FoundData:
    """What `train.data` holds, divided as a run did it, if it is the data of that run, moved or not.

    The run is that of the config, or the one in whose folder this one works. `train.val_share` becomes what
    was done.
    """
    share, tested = cfg.train.val_share, []
    if "train.val_share" not in given:
        # In a run's config it is that of the run's own data.
        share = None if run else share
        folders = filter(None, (run, cfg.train.get("output_dir")))
        tested = [entry for one in folders for entry in read_record(one).get("test", ())]
    for entry in tested:
        known = _made(entry).get("val_share") or 0.0
        with contextlib.suppress(InputError):
            found = find_splits(cfg.train.data, divides=True, val_share=known)
            split = found.splits[split_for(found, "test", cfg.train.data)]
            if AnnotationCache().sha256(str(split.annotations)) == entry["sha256"]:
                cfg.train.val_share = known if found.val_share is not None else share
                return found
    # Where nothing is trained, all of a file is meant unless it is told otherwise.
    found = find_splits(cfg.train.data, divides=not eval_only or share is not None, val_share=share)
    cfg.train.val_share = share if found.val_share is None else found.val_share
    return found


def _is_path(name: str) -> bool:
    if name in DatasetCatalog.list():
        return False
    return os.sep in name or name.endswith((".json", ".yaml", ".yml")) or os.path.exists(name)


def split_for(found: FoundData, role: str, path: str) -> str:
    """The split of what was found at `path` that serves as "train" or "test".

    Raises:
        InputError: there is none.
    """
    wanted = _SPLITS[role]
    if len(found.splits) == 1 and Path(path).is_file():
        # Whatever it is called: a file that is named is meant.
        wanted = tuple(found.splits)
    split = next((split for split in wanted if split in found.splits), None)
    if split is None:
        there = ", ".join(found.splits)
        raise InputError(
            f"{path}: there is no split to {role} on ({there}); name it in a data.yaml, or give its file as "
            f"dataloader.{role}.dataset.names=FILE"
        )
    return split


def _register_split(found: FoundData, role: str, path: str) -> str:
    """Register the split of `found` that serves as "train" or "test"; returns its name."""
    split = split_for(found, role, path)
    chosen = found.splits[split]
    annotations, images = str(chosen.annotations), str(chosen.images)
    name = f"{found.name}_{split}"
    taken = name in DatasetCatalog.list()
    if taken and MetadataCatalog.get(name).get("source_file") != annotations:
        # By another folder of the same name.
        name = f"{name}_{fingerprint_of(annotations)[:6]}"
    if name in DatasetCatalog.list():
        # As it was read for another config.
        forget(name)
    facts: dict[str, Any] = {"own": True, "listed": found.classes}
    if chosen.origin is not None:
        facts["origin"] = str(chosen.origin)
        source = os.path.abspath(os.path.expanduser(path))
        facts["derived"] = {"path": source, "split": split, "val_share": found.val_share}
    _register(name, annotations, images, said=list(chosen.said), **facts)
    return name


def _register(name: str, annotations: str, images: str, **facts: Any) -> None:
    register_coco_instances(name, {"source_file": annotations, **facts}, annotations, images)


def identity(name: str) -> str | None:
    """What stands for the name of a dataset in a recipe, of one named by its path: content and classes."""
    if name not in MetadataCatalog.list() or not MetadataCatalog.get(name).get("own"):
        return None
    metadata = MetadataCatalog.get(name)
    if not os.path.isfile(metadata.json_file):
        # Of a run that is only evaluated: what it was trained on need not be there any more.
        return metadata.get("identity")
    sha256 = AnnotationCache().sha256(metadata.json_file)
    return f"{sha256}: {', '.join(metadata.get('thing_classes', ()))}"


def content_hashes(cfg: DictConfig) -> dict[str, str]:
    """The hash of the annotations of each dataset of `cfg` in COCO's format, by name."""
    paths = {
        name: MetadataCatalog.get(name).json_file
        for role in _SPLITS
        for name in dataset_names(cfg, role)
        if is_registered_by(register_coco_instances, name)
    }
    return {n: AnnotationCache().sha256(path) for n, path in paths.items() if os.path.isfile(path)}


# Where the data of a run lies


def write_record(cfg: DictConfig, folder: str | os.PathLike, *, eval_only: bool = False) -> None:
    """Write RUN/run_data.json: the datasets of a run that are in COCO's format.

    What a run was trained and tested on stays as it is when something else is evaluated in its folder.

    Raises:
        InputError: it cannot be written, or the file there is another program's.
    """
    path, content = os.path.join(folder, RECORD), read_record(folder)
    if os.path.exists(path) and not content:
        raise InputError(f"{path} is not the record of a run: remove it, or give another folder")
    if eval_only:
        entries = _entries(cfg, "test")
        names = [entry["name"] for entry in entries]
        others = [one for one in content.get("evaluated", []) if one["name"] not in names]
        content = {"train": [], "test": [], **content, "evaluated": [*others, *entries]}
    else:
        content = {role: _entries(cfg, role) for role in _SPLITS}
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _entries(cfg: DictConfig, role: str) -> list[dict[str, Any]]:
    entries = []
    for name in dataset_names(cfg, role):
        if not is_registered_by(register_coco_instances, name):
            continue
        metadata = MetadataCatalog.get(name)
        source = os.path.abspath(metadata.get("source_file", metadata.json_file))
        if not os.path.isfile(source):
            continue
        ids = metadata.get("thing_dataset_id_to_contiguous_id")
        classes = metadata.get("thing_classes")
        if not ids:
            known = check_annotations(name, evaluated=role == "test")
            ids, classes = [one["id"] for one in known.categories], known.names
        entries.append(
            {
                "name": name,
                "own": bool(metadata.get("own")),
                "annotations": source,
                "images": os.path.abspath(metadata.image_root),
                "sha256": AnnotationCache().sha256(source),
                "derived": metadata.get("derived"),
                "identity": identity(name),
                "categories": [
                    {"id": id_, "name": one} for id_, one in zip(ids, classes, strict=True)
                ],
            }
        )
    return entries


def trained_categories(cfg: DictConfig) -> list[dict[str, Any]] | None:
    """What the weights of `cfg` were trained on, as far as it is known.

    The run in whose folder they lie says it; else the config's own training data does, if that is there.
    """
    recorded = read_record(os.path.dirname(cfg.train.init_checkpoint or "")).get("train")
    if recorded:
        return recorded[0]["categories"]
    name = next(iter(dataset_names(cfg, "train")), None)
    if name not in DatasetCatalog.list() or not is_registered_by(register_coco_instances, name):
        return None
    metadata = MetadataCatalog.get(name)
    if metadata.get("wanted"):
        return metadata.wanted
    try:
        verdict = verdict_of(metadata.json_file, None, f"dataset {name!r}")
        return wanted_categories(cfg, name, verdict)
    except InputError:
        # It need not be fit for training, or be there at all.
        return None


def read_record(folder: str | os.PathLike) -> dict[str, list[dict[str, Any]]]:
    """What RUN/run_data.json says of what the run was trained and tested on ("train", "test"), and of what
    was only evaluated in its folder ("evaluated"); nothing where there is none, or it is none of ours.
    """
    try:
        content = json.loads(Path(folder, RECORD).read_text(encoding="utf-8"))
        keys = {"name": str, "own": bool, "annotations": str, "images": str, "sha256": str}
        for entries in content.values():
            for entry in entries:
                if not all(isinstance(entry[key], kind) for key, kind in keys.items()):
                    return {}
                [(one["id"], one["name"]) for one in entry["categories"]]
                if derived := entry.get("derived"):
                    os.fspath(derived["path"]), derived["split"], derived["val_share"]
        return {role: content[role] for role in ("train", "test")} | {
            "evaluated": content.get("evaluated", [])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def found_again(
    entry: Mapping[str, Any], looked: dict[tuple[str, float | None], FoundData]
) -> dict[str, Any]:
    """An entry of `read_record` whose annotations, if they were made of other files, are made of these anew.

    Args:
        looked: what was found for other entries, to which this one's is added: no folder is looked at twice.

    Raises:
        InputError: those files cannot be read as they were.
    """
    derived = entry.get("derived")
    if not derived or not os.path.exists(derived["path"]):
        return dict(entry)
    path, share = derived["path"], derived["val_share"]
    if (path, share) not in looked:
        looked[path, share] = find_splits(path, divides=share is not None, val_share=share)
    found = looked[path, share]
    split = found.splits.get(derived["split"])
    if split is None:
        there = ", ".join(found.splits)
        raise InputError(f"{path} has no split {derived['split']} any more ({there}); put it back")
    return {**entry, "annotations": str(split.annotations), "images": str(split.images)}


def is_of_own_data(folder: str | os.PathLike) -> bool:
    """Whether the run in this folder has other data than Detectron2 and this package register."""
    entries = (entry for entries in read_record(folder).values() for entry in entries)
    return any(entry["name"] not in _BUILTIN for entry in entries)


def register_recorded(folder: str | os.PathLike) -> None:
    """Register what RUN/run_data.json has and Detectron2's catalogs have not, or not where it is."""
    looked: dict[tuple[str, float | None], FoundData] = {}
    for entries in read_record(folder).values():
        for entry in (found_again(one, looked) for one in entries):
            name = entry["name"]
            if name in DatasetCatalog.list():
                path = MetadataCatalog.get(name).get("json_file")
                if path is None or os.path.isfile(path) or not os.path.isfile(entry["annotations"]):
                    continue
                forget(name)
            categories = entry["categories"]
            _register(
                name,
                entry["annotations"],
                entry["images"],
                own=entry["own"],
                identity=entry.get("identity"),
                derived=entry.get("derived"),
                origin=place_of(entry),
                wanted=categories,
                thing_classes=[one["name"] for one in categories],
                thing_dataset_id_to_contiguous_id={
                    one["id"]: number for number, one in enumerate(categories)
                },
            )


def changed_since(folder: str | os.PathLike, cfg: DictConfig) -> list[str]:
    """In what the annotations of `cfg` are not those that RUN/run_data.json has, a sentence each."""
    sentences = []
    record = read_record(folder)
    for role in _SPLITS:
        before = record.get(role)
        now = _entries(cfg, role)
        if before and now and len(before) == len(now):
            for old, new in zip(before, now, strict=True):
                if (old["sha256"], old["categories"]) != (new["sha256"], new["categories"]):
                    done = "trained" if role == "train" else "tested"
                    place, now_at = place_of(old), place_of(new)
                    share, now_shared = ((_made(one).get("val_share") or 0) for one in (old, new))
                    before_that = "as it was then" if place == now_at else place
                    if share != now_shared:
                        before_that += f", divided by --val-share {share:g}"
                    sentences.append(
                        f"{now_at} is not what the run in {os.fspath(folder)} was {done} on "
                        f"({before_that})"
                    )
    return sentences


def place_of(entry: Mapping[str, Any]) -> str:
    """What the user has, of an entry of a record."""
    return _made(entry).get("path") or entry["annotations"]


def _made(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return entry.get("derived") or {}
