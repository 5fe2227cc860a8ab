"""Judgements of COCO content: every number counted by hand, every fault put into a clean file.

The clean file has three images of 96 x 80 pixels with two rectangles each, whose masks are what their boxes
say.
"""

import copy

import numpy as np
import pycocotools.mask
import pytest

from ssl_backbones.data.annotations import box_judging, fields
from ssl_backbones.data.annotations.examining import examine
from ssl_backbones.data.annotations.masks import mask_boxes, run_length_fault

BOXES = ([4, 10, 24, 30], [50, 40, 30, 35], [10, 45, 40, 20], [60, 5, 30, 30])
BOXES += ([30, 30, 20, 40], [70, 50, 20, 20])


def rectangle(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


@pytest.fixture
def clean() -> dict:
    images = [
        {"id": id_, "file_name": f"{id_}.jpg", "width": 96, "height": 80} for id_ in (7, 8, 9)
    ]
    annotations = [
        {
            "id": 1 + index,
            "image_id": 7 + index // 2,
            "category_id": 1 + index % 2,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "segmentation": rectangle(*box),
        }
        for index, box in enumerate(BOXES)
    ]
    categories = [{"id": 2, "name": "disc"}, {"id": 1, "name": "box"}]
    return copy.deepcopy({"images": images, "annotations": annotations, "categories": categories})


def put(content, key, values):
    """Other values of the first annotations; None takes the key out."""
    for annotation, value in zip(content["annotations"], values, strict=False):
        if value is None:
            del annotation[key]
        else:
            annotation[key] = value


def test_nothing_is_said_of_a_clean_file(clean):
    findings = examine(clean, "file", masks=True)
    assert findings.warnings == findings.problems == []


def test_counts(clean):
    clean["images"].append({"id": 1, "file_name": "1.jpg", "width": 200, "height": 100})
    clean["images"].append({"id": 2, "file_name": "2.jpg", "width": 10, "height": 9})
    clean["categories"].append({"id": 3, "name": "ring"})
    first, second, third, fourth, *_ = clean["annotations"]
    # The limits of COCO's sizes are 1,024 and 9,216 square pixels; 5 of 6 rectangles are below the first.
    first["area"], second["area"], third["area"] = 1023.9, 9215, 9216
    first["segmentation"] = {"size": [80, 96], "counts": [80 * 96 - 5, 5]}
    first["bbox"] = [95, 75, 1, 5]
    del second["segmentation"]
    fourth["iscrowd"] = 1
    clean["annotations"].append({**first, "id": 99, "image_id": 12345})
    assert examine(clean, "file").counts._asdict() == {
        "images": 5,
        "empty_images": 2,
        "objects": 5,
        "crowds": 1,
        "with_masks": 4,
        "polygons": 3,
        "run_lengths": 1,
        "with_points": 0,
        "points": [],
        # The fourth annotation, the crowd, is of category 2.
        "by_class": {"box": 3, "disc": 2, "ring": 0},
        "small": 3,  # 1,023.9, 20 * 40 and 20 * 20
        "medium": 1,
        "large": 1,
        "smallest_image": "10 x 9",
        "largest_image": "200 x 100",
        "mean_objects": 1.0,
        "max_objects": 2,
    }


def test_a_file_with_nothing_in_it():
    findings = examine({"images": [], "categories": []}, "file", evaluated=True)
    assert findings.counts.images == findings.counts.max_objects == 0
    assert findings.counts.smallest_image == findings.counts.largest_image == ""
    assert findings.problems == ["file: has no images; give a file that lists some"]


def crowds(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def scaled(content, key, of):
    """Shares of images of 96 x 80."""
    for annotation in content["annotations"]:
        annotation[key] = of(annotation[key])


def box_shares(box):
    return [box[0] / 96, box[1] / 80, box[2] / 96, box[3] / 80]


def mask_shares(mask):
    return [[x / (80 if place % 2 else 96) for place, x in enumerate(mask[0])]]


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def bare(content):
    for annotation in content["annotations"]:
        del annotation["segmentation"]


RUNS = {"size": [80, 96], "counts": [80 * 96 - 1]}
PROBLEMS = {
    "image id": (
        lambda c: c["images"].append(c["images"][0]),
        "file: image id 7 stands there twice; give each its own",
    ),
    "category id": (
        lambda c: c["categories"].extend(c["categories"]),
        "file: category id 2 and 1 more stands there twice; give each its own",
    ),
    "annotation id": (
        lambda c: put(c, "id", [2]),
        "file: annotation id 2 stands there twice; give each its own",
    ),
    "unknown category": (
        lambda c: put(c, "category_id", [9, 1, 8]),
        "file: annotation 1 has category_id 9, which is not among the categories (2 such annotations); "
        "correct it, or add the category",
    ),
    "mask of another size": (
        lambda c: put(c, "segmentation", [{**RUNS, "size": [96, 80]}]),
        "file: annotation 1 has a mask of height and width [96, 80], its image [80, 96]; correct it",
    ),
    "runs that do not fill the image": (
        lambda c: put(c, "segmentation", [RUNS, RUNS]),
        "file: annotation 1 has a mask whose runs do not add up to the 7680 pixels of its image (2 such "
        "annotations); correct it",
    ),
    "runs of a crowd": (
        lambda c: put(c, "segmentation", [RUNS]) or put(c, "iscrowd", [1]),
        "file: annotation 1 has a mask whose runs do not add up to the 7680 pixels of its image; correct it",
    ),
    "no annotations": (
        lambda c: c["annotations"].clear(),
        "file: has no annotations of its 3 images; give a file that has some",
    ),
    "none of its images": (
        lambda c: put(c, "image_id", [1] * 6),
        "file: has no annotations of its 3 images; give a file that has some",
    ),
    "no categories": (
        lambda c: c["categories"].clear() or c["annotations"].clear(),
        "file: has no categories; give a file that lists the classes",
    ),
    "crowds alone": (
        crowds,
        "file: all of its 6 annotations are crowds (iscrowd is 1), which are neither trained on nor looked "
        "for in a test; set iscrowd to 0 where one object is meant",
    ),
    "corners": (
        lambda c: scaled(c, "bbox", corners),
        "file: 6 of 6 boxes disagree with their masks (first: annotation 1): written as corners? give x, y, "
        "width and height in pixels",
    ),
    # At 10 the two readings of the sixth box would both be inside; the others reach outside.
    "corners without masks": (
        lambda c: scaled(c, "bbox", corners) or bare(c),
        "file: 5 of 6 boxes reach outside their image (first: annotation 2): written as corners? give x, y, "
        "width and height in pixels",
    ),
    "shares": (
        lambda c: scaled(c, "bbox", box_shares) or bare(c),
        "file: 6 of 6 boxes lie between 0 and 1 (first: annotation 1): written as shares of the image? give "
        "x, y, width and height in pixels",
    ),
    "masks in shares": (
        lambda c: scaled(c, "segmentation", mask_shares),
        "file: 6 of 6 masks lie between 0 and 1 (first: annotation 1): written as shares of the image? give "
        "them in pixels",
    ),
    "most far from their masks": (
        lambda c: put(c, "bbox", [[40, 10, 24, 30]] * 4),
        "file: 4 of 6 boxes disagree with their masks (first: annotation 1): correct the box or the mask; x "
        "and y are those of the upper left corner",
    ),
    "most outside": (
        lambda c: (
            put(c, "bbox", [[-2, 1, 9, 9], [0, -2, 9, 9], [90, 0, 8, 9], [0, 75, 9, 7]]) or bare(c)
        ),
        "file: 4 of 6 boxes reach outside their image (first: annotation 1): give x, y, width and height in "
        "pixels of the image as it is, or cut them at its edge",
    ),
    "most below one pixel": (
        lambda c: put(c, "bbox", [[9, 9, 0, 9], [9, 9, 9, -9], [9, 9, 0.9, 9], [9, 9, 9, 0]]),
        "file: 4 of 6 boxes are less than one pixel wide or high (first: annotation 1): correct them, or "
        "take them out",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems(clean, name):
    spoil, problem = PROBLEMS[name]
    spoil(clean)
    assert examine(clean, "file").problems == [problem]


def test_boxes_and_masks_in_shares_are_two_problems(clean):
    scaled(clean, "bbox", box_shares)
    scaled(clean, "segmentation", mask_shares)
    kinds = [problem.split(" lie ")[0] for problem in examine(clean, "file").problems]
    assert kinds == ["file: 6 of 6 boxes", "file: 6 of 6 masks"]


WARNINGS = {
    "crowds": (
        lambda c: put(c, "iscrowd", [1, 1]),
        "2 of 6 annotations are crowds: they are not trained on, and what is found in them counts as nothing",
        "1 of 3 images have no object: training leaves them out, and what is found in them in a test counts "
        "as wrong",
    ),
    "a class without objects": (
        lambda c: c["categories"].extend({"id": i, "name": f"no {i}"} for i in range(10, 16)),
        "6 of 8 classes have no object ('no 10', 'no 11', 'no 12', 'no 13', 'no 14', ...)",
    ),
    "annotations of other images": (
        lambda c: c["annotations"].append({**c["annotations"][0], "image_id": 1}),
        "1 annotations are of images that are not in the file: ignored",
    ),
    "one name of two images": (
        lambda c: c["images"][0].update(file_name="8.jpg"),
        "1 file names are of more than one image (first: '8.jpg'): if they are one image, give it all of "
        "their annotations",
    ),
    "half far from their masks": (
        lambda c: put(c, "bbox", [[40, 10, 24, 30]] * 3),
        "3 of 6 boxes disagree with their masks (first: annotation 1): correct the box or the mask; x and y "
        "are those of the upper left corner",
    ),
    # It is outside and far from its mask, and counts as outside.
    "one outside": (
        lambda c: put(c, "bbox", [[-30, 10, 24, 30]]),
        "1 of 6 boxes reach outside their image (first: annotation 1): give x, y, width and height in pixels "
        "of the image as it is, or cut them at its edge",
    ),
    "two as corners": (
        lambda c: put(c, "bbox", [corners(BOXES[0]), corners(BOXES[1])]),
        "1 of 6 boxes reach outside their image (first: annotation 2): give x, y, width and height in pixels "
        "of the image as it is, or cut them at its edge",
    ),
    "some without a mask": (
        lambda c: put(c, "segmentation", [None, []]),
        "2 of 6 objects have no mask (first: annotation 1): give them one, or train boxes alone "
        "(model.roi_heads.mask_in_features=null)",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings(clean, name):
    spoil, *warnings = WARNINGS[name]
    spoil(clean)
    findings = examine(clean, "file")
    assert findings.warnings == warnings
    assert findings.problems == []


FINE = {
    "all without masks": bare,
    "within a pixel of the edge": lambda c: (
        put(c, "bbox", [[-1, 0, 24, 30], [73, 1, 24, 80]]) or bare(c)
    ),
    # Read as corners they are the same.
    "boxes that begin at 0": lambda c: (
        put(c, "bbox", [[0, 0, 30, 30]] * 6)
        or put(c, "segmentation", [rectangle(0, 0, 30, 30)] * 6)
    ),
    # One object fills the image with a margin; as corners it would lie inside as well.
    "one large object": lambda c: (
        c["annotations"].__delitem__(slice(1, None))
        or put(c, "bbox", [[3, 3, 92, 76]])
        or put(c, "category_id", [1])
        or put(c, "segmentation", [rectangle(6, 5, 86, 72)])
    ),
    # Its box is one pixel high at least, its mask has no height.
    "a line": lambda c: (
        put(c, "bbox", [[4, 10, 24, 1]]) or put(c, "segmentation", [[[4, 10, 28, 10, 16, 10]]])
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_what_looks_odd_and_is_not(clean, name):
    FINE[name](clean)
    findings = examine(clean, "file")
    assert findings.problems == []
    assert [text for text in findings.warnings if "boxes" in text or "masks" in text] == []


def test_one_sloppy_box_among_many_that_tell_nothing_is_no_sign_of_corners(clean):
    # Centred close-ups can be read as corners as well; the last reaches outside as it is read.
    close_ups = [[20, 20, 50, 40]] * 5 + [[20, 20, 79, 50]]
    put(clean, "bbox", close_ups)
    bare(clean)
    findings = examine(clean, "file")
    assert findings.problems == []
    assert findings.warnings[0].startswith(
        "1 of 6 boxes reach outside their image (first: annotation 6)"
    )


def test_a_mask_model_needs_a_mask_of_every_object_or_of_none(clean):
    put(clean, "segmentation", [None])
    assert examine(clean, "file", masks=True).problems == [
        "file: 1 of 6 objects have no mask (first: annotation 1): give them one, or train boxes alone "
        "(model.roi_heads.mask_in_features=null)"
    ]
    assert examine(clean, "file", masks=False).warnings == []
    # A crowd is left out of training; pycocotools wants its mask in a test.
    put(clean, "iscrowd", [1])
    assert examine(clean, "file", masks=True).problems == []
    assert len(examine(clean, "file", masks=True, evaluated=True).problems) == 1


def test_boxes_alone_make_a_model_of_boxes(clean):
    bare(clean)
    assert examine(clean, "file", masks=True).problems == []


def test_a_test_set_may_have_no_annotations(clean):
    del clean["annotations"]
    assert examine(clean, "file", evaluated=True).problems == []
    assert examine(clean, "file", evaluated=True).warnings == []
    assert len(examine(clean, "file").problems) == 1


def test_ids_may_repeat_in_minival_files(clean):
    put(clean, "id", [2])
    assert examine(clean, "dataset 'minival' (file)").problems == []


def test_of_many_masks_some_are_looked_at_and_this_is_said(clean, monkeypatch):
    monkeypatch.setattr(box_judging, "_LOOKED_AT", 3)
    scaled(clean, "bbox", corners)
    assert examine(clean, "file").problems == [
        "file: 3 of 3 boxes looked at disagree with their masks (first: annotation 1): written as corners? "
        "give x, y, width and height in pixels"
    ]


def test_a_long_file_is_judged_as_a_short_one(clean, monkeypatch):
    put(clean, "bbox", [[-9, 0, 20, 20]])
    put(clean, "category_id", [9])
    expected = examine(clean, "file")
    monkeypatch.setattr(fields, "_BATCH", 2)
    assert len(clean["annotations"]) > 2
    assert examine(clean, "file") == expected


def test_mask_boxes_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    masks, expected = [None], [[np.nan] * 4]
    for _ in range(20):
        pixels = np.asfortranarray(rng.random((17, 23)) < 0.02, np.uint8)
        found = pycocotools.mask.encode(pixels)
        rows, columns = np.nonzero(pixels)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        bits = pixels.T.reshape(-1)
        edges = np.flatnonzero(np.diff(bits, prepend=0, append=1 - bits[-1]))
        plain = np.diff(edges, prepend=0).tolist()
        for counts in (found["counts"].decode(), plain):
            masks.append({"size": [17, 23], "counts": counts})
            expected.append(box)
    masks.append([[1, 2.5, 5, 2, 3, 9], [7, 1, 8, 1, 8, 2], [100, 100]])
    expected.append([1, 1, 8, 9])
    assert [run_length_fault(mask, 17, 23) for mask in masks[1:-1]] == [None] * 40
    np.testing.assert_array_equal(mask_boxes(masks), expected)


LONG = pycocotools.mask.encode(np.asfortranarray(np.eye(300, dtype=np.uint8)))["counts"].decode()


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        (LONG, None),
        (LONG[:-1], "do not add up"),
        ("", "not COCO's compressed run lengths"),
        ("é", "not COCO's compressed run lengths"),
        ("/", "not COCO's compressed run lengths"),
        ("p0", "not COCO's compressed run lengths"),
        # Ends within a number: pycocotools would read on.
        (LONG + "P", "not COCO's compressed run lengths"),
        ("PPPPPPPPPPPPPPPP1", "not COCO's compressed run lengths"),
        # -1, and what is then missing.
        ("O" + "0", "do not add up"),
        ([90_000], None),
        ([-1, 90_001], "do not add up"),
        ([], "do not add up"),
        (None, "not COCO's compressed run lengths"),
    ],
)
def test_run_lengths_that_do_not_fill_their_image(counts, fault):
    found = run_length_fault({"size": [300, 300], "counts": counts}, 300, 300)
    assert found is None if fault is None else fault in found
