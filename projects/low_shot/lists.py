"""Label 1, 2, 5 and 10 % of COCO's training images, five times each, the same on every machine.

They are chosen by the ids in instances_train2017.json: `labelled_share` in ssl_backbones/data/dividing.py has
the rule.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

SHARES = (1, 2, 5, 10)
"""Percent of the images."""

FOLDS = (0, 1, 2, 3, 4)

SOURCE = "coco/annotations/instances_train2017.json"
FOLDER = "coco_low_shot"
"""Both below $DETECTRON2_DATASETS."""

COMMAND = "python projects/low_shot/lists.py"
PLAN = (
    "python tools/evaluate_backbone.py ssl://moco_v2_800ep --protocols "
    f"{','.join(f'low_shot_{share}' for share in SHARES)} --num-gpus 8 --plan"
)
"""What comes after it."""

_MARK = "made.json"


def as_text(ids: Iterable[int]) -> str:
    """A list as it is written: an id a line."""
    return "".join(f"{id_}\n" for id_ in ids)


def name_of(share: int, fold: int) -> str:
    return f"{share}_fold{fold}"


def register() -> None:
    """Enter `coco_low_shot_SHARE_foldFOLD_train` of each share and fold in Detectron2's catalogs.

    Nothing is read: the files may be made later.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances

    from ssl_backbones.data import datasets_root

    whole = MetadataCatalog.get("coco_2017_train")
    metadata = {"thing_classes": whole.thing_classes, "made_by": COMMAND}
    for share in SHARES:
        for fold in FOLDS:
            name = f"coco_low_shot_{name_of(share, fold)}_train"
            if name not in DatasetCatalog:
                path = datasets_root() / FOLDER / f"{name_of(share, fold)}.json"
                register_coco_instances(name, metadata, str(path), whole.image_root)


def write_lists(root: Path, on_list: Callable[[], None] = lambda: None) -> None:
    """Write the JSON, in COCO's format, and the ids of every share and fold below `root`.

    The same source gives the same bytes. The folder appears whole or not at all; it is left alone if it is of
    this source and each of its files is what was written.

    Raises:
        InputError: COCO's file is not there or is something else, or the folder holds something else.
    """
    from ssl_backbones.data.dividing import LABELLED_SEED
    from ssl_backbones.errors import InputError
    from ssl_backbones.fast.annotations.coco_json import parse_json
    from ssl_backbones.files import write_folder
    from ssl_backbones.hashing import digest_of

    source, folder = root / SOURCE, root / FOLDER
    if not source.is_file():
        raise InputError(
            f"{source} is not there: put COCO below {root}, or set DETECTRON2_DATASETS"
        )
    of = {"source_sha256": digest_of(source), "seed": LABELLED_SEED}
    if folder.exists():
        made = _made(folder)
        if made is None:
            raise InputError(f"{folder} holds something else than these lists: move it away")
        if made == of | {"files": _digests(folder)}:
            return
    try:
        content = parse_json(source.read_bytes())
        parts = dict(_subsets(content))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source} is not in COCO's format ({error!r}): get it anew") from error

    def fill(place: Path) -> None:
        for name, make in parts.items():
            part = make()
            text = json.dumps(part, separators=(",", ":"))
            (place / f"{name}.json").write_text(text, encoding="utf-8")
            ids = sorted(image["id"] for image in part["images"])
            (place / f"{name}.txt").write_text(as_text(ids))
            on_list()
        (place / _MARK).write_text(json.dumps(of | {"files": _digests(place)}))

    write_folder(folder, fill)


def _subsets(content: dict[str, Any]) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Each list's name, and how its content is made: all of them at once would take much memory."""
    from ssl_backbones.data.dividing import labelled_share

    ids = [image["id"] for image in content["images"]]
    rest = {key: content[key] for key in ("info", "licenses", "categories") if key in content}
    annotations = content["annotations"]
    for share in SHARES:
        for fold in FOLDS:
            chosen = set(labelled_share(ids, share, fold))

            def part(chosen: set[int] = chosen) -> dict[str, Any]:
                return {
                    **rest,
                    "images": [image for image in content["images"] if image["id"] in chosen],
                    "annotations": [one for one in annotations if one["image_id"] in chosen],
                }

            yield name_of(share, fold), part


def _made(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / _MARK).read_text())
    except (OSError, ValueError):
        return None


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each list that is in a folder."""
    from ssl_backbones.hashing import digest_of

    names = [
        f"{name_of(share, fold)}.{ending}"
        for share in SHARES
        for fold in FOLDS
        for ending in ("json", "txt")
    ]
    return {name: digest_of(folder / name) for name in names if (folder / name).is_file()}


def read_list(root: Path, share: int, fold: int) -> tuple[int, str]:
    """How many images a list has, and the SHA-256 of its JSON, which training reads.

    Raises:
        InputError: it is not there, or is not in COCO's format.
    """
    from ssl_backbones.errors import InputError
    from ssl_backbones.fast.annotations.coco_json import parse_json

    path = root / FOLDER / f"{name_of(share, fold)}.json"
    try:
        data = path.read_bytes()
        return len(parse_json(data)["images"]), hashlib.sha256(data).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): {COMMAND} makes it anew") from error


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"examples:\n  {COMMAND}\n  DETECTRON2_DATASETS=/data {COMMAND}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help=f"has {SOURCE} and gets {FOLDER} (default: $DETECTRON2_DATASETS, or datasets)",
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> int:
    from ssl_backbones.data import datasets_root
    from ssl_backbones.progress import progress_bar

    root = arguments.root or datasets_root()
    with progress_bar(len(SHARES) * len(FOLDS)) as advance:
        write_lists(root, advance)
    print("share  fold  images  SHA-256 of the list")
    for share in SHARES:
        for fold in FOLDS:
            images, sha256 = read_list(root, share, fold)
            print(f"{share:3} %  {fold:4}  {images:6}  {sha256}")
    print(f"lists: {root / FOLDER}\nnext: {PLAN}")
    return 0


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
