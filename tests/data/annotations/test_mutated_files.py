"""Mutated COCO files: the clean file's content, exactly the other content, or one line that refuses them."""

import copy
import json
import math
from collections import Counter

import numpy as np
import pycocotools.mask
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_backbones.data.annotations.reading import read_coco
from ssl_backbones.errors import InputError

ours = settings(max_examples=300, deadline=None, derandomize=True, database=None)

# No number is above 16, so that whatever is swapped, polygons stay near their images.
CLEAN = {
    "info": {"year": 2017},
    "images": [
        {"id": 1, "file_name": "1.jpg", "height": 6, "width": 8},
        {"id": 2, "file_name": "b/2.jpg", "height": 6, "width": 8, "license": 4},
        {"id": 3, "file_name": "3.jpg", "height": 7, "width": 9},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 3, "name": "hen"}],
    "annotations": [
        {
            **{"id": 10, "image_id": 1, "category_id": 1, "bbox": [2, 1, 4, 4], "area": 16},
            **{"iscrowd": 0, "segmentation": [[2, 1, 6, 1, 6, 5, 2, 5]]},
        },
        {
            **{"id": 11, "image_id": 2, "category_id": 5, "bbox": [0.5, 0.5, 6.0, 4.5]},
            **{"area": 12.25, "iscrowd": 0, "score": 0.5},
            "segmentation": [[0.5, 0.5, 6.5, 0.5, 0.5, 4.5], [1, 2, 3.5, 2, 3, 5]],
        },
        {
            **{"id": 12, "image_id": 2, "category_id": 5, "bbox": [1, 0, 2, 3], "area": 6},
            **{"iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [6, 3, 3, 3, 9, 0, 9, 0, 15]}},
        },
        # Compressed by pycocotools, from counts 6, 3, 3, 3, 33.
        {
            **{"id": 13, "image_id": 1, "category_id": 3, "bbox": [1, 0, 2, 3], "area": 6},
            **{"iscrowd": 0, "segmentation": {"size": [6, 8], "counts": "6330n0"}},
        },
        {
            **{"id": 14, "image_id": 3, "category_id": 1, "bbox": [0, 1.5, 2, 2], "area": 4.0},
            **{"iscrowd": 0},
        },
    ],
}  # fmt: skip


def paths_in(content, prefix=()):
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths_in(value, (*prefix, key))


PATHS = list(paths_in(CLEAN))


def get(content, path):
    for key in path:
        content = content[key]
    return content


def put(content, path, value):
    get(content, path[:-1])[path[-1]] = value


def read(content, dump=json.dumps):
    """The content as read, or None where it is refused in one line; anything else is raised."""
    data = content if isinstance(content, bytes) else dump(content).encode()
    try:
        reading = read_coco(data, "x")
    except InputError as error:
        assert str(error).startswith("x: ")
        assert str(error).isprintable()
        return None
    assert all(change.isprintable() for change in reading.changes)
    return reading


# What the files mean, field by field, said once more in the plainest way.


class RefusedError(Exception):
    pass


def number(value):
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise RefusedError from None
    if not isinstance(value, int | float):
        raise RefusedError
    return value


def whole(value):
    if number(value) != int(number(value)):
        raise RefusedError
    return int(number(value))


def integers(values):
    if not isinstance(values, list) or any(isinstance(value, str) for value in values):
        raise RefusedError
    if min(map(whole, values), default=0) < 0:
        raise RefusedError
    return [whole(value) for value in values]


def mask_meant(mask):
    if isinstance(mask, dict):
        size, counts = integers(mask.get("size")), mask.get("counts")
        # The one text among all that is run lengths.
        counts = counts if counts == "6330n0" else integers(counts)
        if len(size) != 2:
            raise RefusedError
        return {**mask, "size": size, "counts": counts}
    if not isinstance(mask, list):
        raise RefusedError
    if mask and not any(isinstance(part, dict | list | None) for part in mask):
        mask = [mask]
    if any(not isinstance(part, list) or len(part) < 6 or len(part) % 2 for part in mask):
        raise RefusedError
    return [[number(value) for value in part] for part in mask]


def pixels_meant(mask, height, width):
    """Drawn whole: bool, height x width."""
    if isinstance(mask, list):
        drawn = pycocotools.mask.decode(pycocotools.mask.frPyObjects(mask, height, width))
        return drawn.any(axis=2)
    runs = [6, 3, 3, 3, 33] if mask["counts"] == "6330n0" else mask["counts"]
    if sum(runs) != math.prod(mask["size"]):
        raise RefusedError
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(mask["size"], order="F")


def box_meant(mask):
    if isinstance(mask, list):
        points = np.concatenate([np.reshape(part, (-1, 2)) for part in mask])
        return [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()]
    pixels = pixels_meant(mask, None, None)
    if not pixels.any():
        return [0, 0, 0, 0]
    ys, xs = np.nonzero(pixels)
    return [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]


def ids_meant(rows):
    """No mutation makes names of all ids of a table."""
    ids = [whole(row.get("id")) for row in rows]
    of_text = [whole(row["id"]) for row in rows if isinstance(row["id"], str)]
    if any(ids.count(id_) > 1 for id_ in of_text):
        raise RefusedError
    for row, id_ in zip(rows, ids, strict=True):
        row["id"] = id_


def annotation_meant(row, images):
    for key in ("image_id", "category_id"):
        row[key] = whole(row.get(key))
    mask = row.get("segmentation")
    if mask is not None:
        mask = row["segmentation"] = mask_meant(mask)
    else:
        row.pop("segmentation", None)
    if row.get("bbox") is None:
        if not mask:
            raise RefusedError
        row["bbox"] = box_meant(mask)
    if not isinstance(row["bbox"], list) or len(row["bbox"]) != 4:
        raise RefusedError
    row["bbox"] = [number(value) for value in row["bbox"]]
    if row.get("area") is None and mask:
        row["area"] = pixels_meant(mask, *images.get(row["image_id"], (20, 20)))
        row["area"] = int(row["area"].sum())
    elif row.get("area") is None:
        row["area"] = row["bbox"][2] * row["bbox"][3]
    row["area"] = number(row["area"])
    row["iscrowd"] = 0 if row.get("iscrowd") is None else whole(row["iscrowd"])
    if row["area"] < 0 or row["iscrowd"] not in (0, 1):
        raise RefusedError


def meaning(content):
    """What a mutated file means, by another way than the reader's.

    Raises:
        RefusedError: it is not sure.
    """
    content = copy.deepcopy(content)
    tables = [content.get("images"), content.get("categories"), content.get("annotations", [])]
    for rows in tables:
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise RefusedError
    images, categories, annotations = tables
    present = [whole(row["id"]) for row in annotations if row.get("id") is not None]
    missing = [row for row in annotations if row.get("id") is None]
    for id_, row in enumerate(missing, max(present, default=0) + 1):
        row["id"] = id_
    for rows in tables:
        ids_meant(rows)
    for row in images:
        for key in ("height", "width"):
            row[key] = whole(row.get(key))
            if row[key] <= 0:
                raise RefusedError
        if not isinstance(row.get("file_name"), str):
            raise RefusedError
    for row in categories:
        if isinstance(row.get("name"), int | float):
            row["name"] = str(row["name"])
        if not isinstance(row.get("name"), str):
            raise RefusedError
    names = Counter(row["name"] for row in categories)
    for row in categories:
        same = {other["id"] for other in categories if other["name"] == row["name"]}
        if names[row["name"]] > 1 and len(same) > 1:
            row["renamed"] = f"{row['name']} ({row['id']})"
    for row in categories:
        row["name"] = row.pop("renamed", row["name"])
    sizes = {row["id"]: (row["height"], row["width"]) for row in images}
    for row in annotations:
        annotation_meant(row, sizes)
    return content


@st.composite
def mutated(draw):
    """The clean file after one or two changes; a swap is of any two values, neither inside the other."""
    content = copy.deepcopy(CLEAN)
    for _ in range(draw(st.integers(1, 2))):
        paths = list(paths_in(content))
        # Tables and fields alike, or most paths would be coordinates.
        depth = draw(st.sampled_from(sorted({len(path) for path in paths})))
        path = draw(st.sampled_from([path for path in paths if len(path) == depth]))
        value = get(content, path)
        change = draw(st.sampled_from(["drop", "null", "retype", "swap", "other"]))
        is_number = isinstance(value, int | float)
        if change == "drop":
            del get(content, path[:-1])[path[-1]]
        elif change == "null":
            put(content, path, None)
        elif change == "retype" and is_number:
            put(content, path, draw(st.sampled_from([str(value), float(value), str(float(value))])))
        elif change == "other" and is_number:
            put(content, path, draw(st.integers(0, 16) | st.sampled_from([-1, 0.25, 9.75])))
        elif change == "other" and isinstance(value, str):
            put(content, path, draw(st.sampled_from(["cat", "dog", "c/4.jpg", "6330n0"])))
        elif change == "swap":
            others = [
                other
                for other in paths
                if other[: len(path)] != path and path[: len(other)] != other
            ]
            if not others:
                continue
            other = draw(st.sampled_from(others))
            theirs = get(content, other)
            put(content, other, value)
            put(content, path, theirs)
    return content


@ours
@given(mutated())
def test_a_mutated_file_is_read_as_what_it_means_or_refused(content):
    try:
        expected = meaning(content)
    except RefusedError:
        expected = None
    reading = read(content)
    assert (reading and reading.content) == expected
    if reading is not None:
        assert is_canonical(reading.content)
        # What was read has nothing left to change, and nothing was said of what is as it was.
        assert read(reading.content) == (reading.content, [])
        assert (reading.changes == []) == is_same(reading.content, content)


def is_same(one, other):
    """Equal, and 7 is not 7.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


FORMS = {
    "iscrowd": lambda value: [None, bool(value), str(value), float(value)],
    "height": lambda value: [float(value), str(value)],
    "width": lambda value: [float(value), str(value)],
    "id": lambda value: [float(value), f"00{value}"],
    "image_id": lambda value: [float(value), str(value)],
    "category_id": lambda value: [float(value), str(value)],
    "area": lambda value: [str(value)],
    "bbox": lambda value: [[str(number) for number in value]],
    "file_name": lambda value: [value.replace("/", "\\")],
}


@ours
@given(st.data())
def test_any_number_of_odd_forms_at_once_is_the_clean_file(data):
    content = copy.deepcopy(CLEAN)
    for path in PATHS:
        if path[-1] in FORMS and data.draw(st.booleans()):
            value = get(CLEAN, path)
            # No crowd is null.
            forms = [form for form in FORMS[path[-1]](value) if value != 1 or form is not None]
            put(content, path, data.draw(st.sampled_from(forms)))
    reading = read(content)
    assert is_same(reading.content, CLEAN) or reading.content == CLEAN
    assert is_canonical(reading.content)


def is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def is_canonical(content):
    """Whether all is as the reader's callers take for granted."""
    return (
        all(
            type(row["id"]) is int
            and (type(row["file_name"]) is str if "file_name" in row else "coco_url" in row)
            and "\\" not in row.get("file_name", "")
            and all(type(row[key]) is int and row[key] > 0 for key in ("height", "width"))
            for row in content["images"]
        )
        and all(
            type(row["id"]) is int and type(row["name"]) is str and row["name"] != ""
            for row in content["categories"]
        )
        and all(map(is_canonical_annotation, content.get("annotations", [])))
    )


def is_canonical_annotation(row):
    return (
        all(type(row[key]) is int for key in ("id", "image_id", "category_id", "iscrowd"))
        and row["iscrowd"] in (0, 1)
        and is_number(row["area"])
        and row["area"] >= 0
        and type(row["bbox"]) is list
        and len(row["bbox"]) == 4
        and all(map(is_number, row["bbox"]))
        and ("segmentation" not in row or is_canonical_mask(row["segmentation"]))
    )


def is_canonical_mask(mask):
    if type(mask) is list:
        return all(
            len(part) >= 6 and len(part) % 2 == 0 and all(map(is_number, part)) for part in mask
        )
    counts = mask["counts"]
    return (
        len(mask["size"]) == 2
        and all(type(side) is int and side >= 0 for side in mask["size"])
        and (
            type(counts) is str
            or (type(counts) is list and all(type(run) is int and run >= 0 for run in counts))
        )
    )


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    # Numbers past int64 and the floats, and text that only Python takes for numbers.
    | st.sampled_from([10**400, 2**63, -1e308, "1e999", "1_000", "٣", "nan", "\ud800", "a\0", "0x1"])
)  # fmt: skip
KEYS = st.sampled_from(["id", "x", "y", "size", "counts", "name", "coco_url"])
VALUES = st.recursive(
    SCALARS,
    lambda inside: st.lists(inside, max_size=8) | st.dictionaries(KEYS, inside, max_size=3),
    max_leaves=12,
)


@ours
@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES | st.just("drop")), max_size=4))
def test_any_values_are_read_or_refused(changes):
    content = copy.deepcopy(CLEAN)
    for path, value in changes:
        try:
            put(content, path, value)
            if value == "drop":
                del get(content, path[:-1])[path[-1]]
        except (KeyError, IndexError, TypeError):
            # An earlier change took away what this one would change.
            continue
    reading = read(content)
    assert reading is None or is_canonical(reading.content)


@ours
@given(st.integers(0, 2000), st.integers(0, 20), st.binary(max_size=4))
def test_any_bytes_are_read_or_refused(start, length, inserted):
    data = json.dumps(CLEAN).encode()
    start = min(start, len(data))
    reading = read(data[:start] + inserted + data[start + length :])
    assert reading is None or is_canonical(reading.content)


@ours
@given(VALUES)
def test_any_other_json_is_refused(content):
    assert read(content) is None
