"""Data without a split divided into what is trained and what is tested on, the same way whenever it grows;
and images divided into those with and without labels, the same way on every machine."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..hashing import digest_of

VAL_SHARE = 0.2
"""Of the images, to test on."""

LABELLED_SEED = 0
"""Of `labelled_share`."""

_ROBOFLOWS = re.compile(r"\.rf\.[0-9A-Za-z]+(?=\.[^./]+$)")
"""What Roboflow puts into the names of the copies that it makes of an image: street_jpg.rf.HASH.jpg."""


def divide(content: Mapping[str, Any], root: Path, share: float) -> dict[str, dict[str, Any]]:
    """Divide a COCO file's content into "train" and "val".

    An image goes to val if the SHA-256 of its file name, as a number from 0 to 1, is below `share`: it stays
    where it is when others are added. The name is without the hash of Roboflow's copies, which so stay
    together. Files of the same bytes go to val if all of their names do: a copy of what is trained on never
    takes it there. Each side has an image at least.

    Args:
        root: the folder of the file names.

    Raises:
        InputError: there are not two images that differ, or one has no file name, as LVIS's.
    """
    names = [image.get("file_name") for image in content["images"]]
    if None in names:
        raise InputError(
            f"{root}: image {content['images'][names.index(None)]['id']} has no file_name to divide the data "
            "by; give it one, or files for train and val"
        )
    groups = _groups(names, root)
    places = {name: place for group in groups for place in [_place(group)] for name in group}
    kept_in_val = {name for name, place in places.items() if place < share}
    if len(groups) < 2:
        raise InputError(
            f"{root}: {len(names)} images, all of them one picture, do not make a training and a test set; "
            "give more, or --val-share 0 to test on what is trained on"
        )
    groups.sort(key=lambda group: places[group[0]])
    if not kept_in_val:
        kept_in_val = {*groups[0]}
    elif len(kept_in_val) == len(places):
        kept_in_val -= {*groups[-1]}
    sides = {}
    for side in ("train", "val"):
        is_val = side == "val"
        images = [one for one in content["images"] if (one["file_name"] in kept_in_val) == is_val]
        ids = {image["id"] for image in images}
        annotations = [one for one in content.get("annotations", ()) if one["image_id"] in ids]
        sides[side] = {**content, "images": images, "annotations": annotations}
    return sides


def _place(group: Iterable[str]) -> float:
    sources = {_ROBOFLOWS.sub("", name) for name in group}
    digests = (hashlib.sha256(os.fsencode(name)).digest() for name in sources)
    return max(int.from_bytes(digest[:8], "big") / 2**64 for digest in digests)


def _groups(names: Iterable[str], root: Path) -> list[list[str]]:
    """The names by what must not be torn apart: copies of one image."""
    leader = {name: name for name in names}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    by_source: dict[str, str] = {}
    for name in leader:
        first = by_source.setdefault(_ROBOFLOWS.sub("", name), name)
        leader[find(name)] = find(first)
    for first, *others in equal_files(leader, root):
        for other in others:
            leader[find(other)] = find(first)
    groups = defaultdict(list)
    for name in leader:
        groups[find(name)].append(name)
    return list(groups.values())


def equal_files(names: Iterable[str], root: Path) -> list[list[str]]:
    """The names of files of the same bytes below `root`, in groups of two and more, each in order.

    Sizes are compared first: only files of a size that another one has are read.

    Raises:
        InputError: a file is not there.
    """
    by_size: dict[int, set[str]] = defaultdict(set)
    for name in names:
        path = root / name
        try:
            by_size[os.stat(path).st_size].add(name)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}; mend that") from error
    by_content: dict[tuple[int, str], list[str]] = defaultdict(list)
    for size, alike in by_size.items():
        for name in sorted(alike) if len(alike) > 1 else ():
            by_content[size, digest_of(root / name)].append(name)
    return [group for group in by_content.values() if len(group) > 1]


def labelled_share(ids: Iterable[Any], share: int, fold: int) -> list[Any]:
    """The ids of a fold's images that are labelled where `share` percent of all are; ascending.

    The rule: of fold F, the ids of all images are sorted by the SHA-256 (hexadecimal) of "0:F:ID", and the
    first round(P % of them) are those of P % (halves up, at least one). So the images of a smaller share are
    among those of a larger one; folds have nothing to do with each other.
    """

    def place(id_: Any) -> str:
        return hashlib.sha256(f"{LABELLED_SEED}:{fold}:{id_}".encode()).hexdigest()

    ordered = sorted(ids, key=place)
    return sorted(ordered[: number_labelled(len(ordered), share)])


def number_labelled(images: int, share: int) -> int:
    """Of so many images that many percent, halves up and at least one."""
    return max(1, (images * share + 50) // 100)


def with_labels_of(content: Mapping[str, Any], share: int, fold: int) -> dict[str, Any]:
    """A COCO file's content with that many percent of its images, by their names as `labelled_share` does."""
    often = Counter(image.get("file_name") for image in content["images"])
    names = {
        image["id"]: f"{name}" if name and often[name] == 1 else f"{name} {image['id']}"
        for image in content["images"]
        for name in (image.get("file_name"),)
    }
    kept = set(labelled_share(names.values(), share, fold))
    images = [image for image in content["images"] if names[image["id"]] in kept]
    of_kept = {image["id"] for image in images}
    annotations = [one for one in content.get("annotations", ()) if one["image_id"] in of_kept]
    return {**content, "images": images, "annotations": annotations}


def absent_classes(sides: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What classes have objects on one side alone, a sentence each side."""
    names = {one["id"]: one["name"] for side in sides.values() for one in side["categories"]}
    there = {
        side: {one["category_id"] for one in content["annotations"]}
        for side, content in sides.items()
    }
    every: Sequence[int] = sorted(set().union(*there.values()))
    return [
        f"no object of {', '.join(names[id_] for id_ in missing)} fell into {side}"
        for side, own in there.items()
        if (missing := [id_ for id_ in every if id_ not in own])
    ]
