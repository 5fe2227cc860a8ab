"""The embedded dataset, held against scikit-learn, pycocotools and Detectron2's own reader."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from PIL import Image
from pycocotools.coco import COCO
from sklearn.datasets import load_digits, load_sample_image

from ssl_backbones.data import DIGITS_COMMAND, register_digits
from ssl_backbones.data.digits import digit_scenes, digits_dataset
from ssl_backbones.errors import InputError

SIZE = 64
NUM = {"train": 6, "test": 4}


def write(root, **changes):
    arguments = {"num_train": NUM["train"], "num_test": NUM["test"], "size": SIZE, "seed": 3}
    return digits_dataset.write_digits(root, **arguments | changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("datasets") / "digits"
    write(folder)
    return folder


@pytest.fixture(params=["train", "test"])
def split(request) -> str:
    return request.param


def read(root, split) -> dict:
    return json.loads((root / "annotations" / f"{split}.json").read_text())


def scenes(split) -> list[digit_scenes.Scene]:
    """The scenes of `root`, made anew."""
    number = digit_scenes.SPLITS.index(split)
    return [
        digit_scenes.make_scene(split, size=SIZE, seed=(3, number, i)) for i in range(NUM[split])
    ]


def bytes_below(folder) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_same_seed_same_bytes(root, tmp_path):
    write(tmp_path / "again")
    assert bytes_below(tmp_path / "again") == bytes_below(root)
    write(tmp_path / "other", seed=4)
    other = bytes_below(tmp_path / "other")
    assert all(other[name] != content for name, content in bytes_below(root).items())


def test_a_scene_depends_on_its_position_alone(root, tmp_path):
    write(tmp_path / "shorter", num_train=2)
    shorter, longer = bytes_below(tmp_path / "shorter"), bytes_below(root)
    assert shorter["train/000002.jpg"] == longer["train/000002.jpg"]
    assert read(tmp_path / "shorter", "train")["images"] == read(root, "train")["images"][:2]


def test_polygons_are_the_visible_strokes(root, split, capsys):
    coco = COCO(str(root / "annotations" / f"{split}.json"))
    capsys.readouterr()  # pycocotools prints
    for image_id, scene in enumerate(scenes(split), start=1):
        annotations = coco.imgToAnns[image_id]
        assert len(annotations) == len(scene.masks) >= 1
        for annotation, mask in zip(annotations, scene.masks, strict=True):
            raster = coco.annToMask(annotation).astype(bool)
            covered = mask.reshape(SIZE, digit_scenes.CELLS, SIZE, digit_scenes.CELLS).mean((1, 3))
            stroke = covered >= 0.5
            assert (raster & stroke).sum() / (raster | stroke).sum() > 0.9
            # Nothing well inside is missing, nothing well outside is in: holes stay open.
            assert raster[covered > 0.9].all() and not raster[covered < 0.1].any()
            assert annotation["area"] == raster.sum()
            assert annotation["iscrowd"] == 0


def test_boxes_enclose_the_visible_strokes(root, split):
    annotations = read(root, split)["annotations"]
    masks = [mask for scene in scenes(split) for mask in scene.masks]
    for annotation, mask in zip(annotations, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x0, y0, width, height = annotation["bbox"]
        box = np.array([x0, y0, x0 + width, y0 + height]) * digit_scenes.CELLS
        edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(box, edges, atol=1.01)  # cells: an eighth of a pixel


def test_no_pixel_belongs_to_two_digits(split):
    overlapping = 0
    for index in range(30):
        scene = digit_scenes.make_scene(split, size=SIZE, seed=(index,))
        boxes = [(m.any(0), m.any(1)) for m in scene.masks]
        for (first, a), (second, b) in combinations(zip(scene.masks, boxes, strict=True), 2):
            assert not (first & second).any()
            overlapping += (a[0] & b[0]).any() and (a[1] & b[1]).any()
    assert overlapping > 5  # or there was nothing to settle


def test_classes_are_those_of_scikit_learn(root, split):
    target, content = load_digits().target, read(root, split)
    classes = {category["id"]: int(category["name"]) for category in content["categories"]}
    assert sorted(classes.values()) == list(range(10))
    for image in content["images"]:
        labels = [
            classes[annotation["category_id"]]
            for annotation in content["annotations"]
            if annotation["image_id"] == image["id"]
        ]
        assert labels == target[image["digits"]].tolist()


def test_detectron2_reads_it_as_coco(root, split):
    records = load_coco_json(
        str(root / "annotations" / f"{split}.json"), str(root / split), f"digits_read_{split}"
    )
    assert len(records) == NUM[split]
    for record, scene in zip(records, scenes(split), strict=True):
        image = np.asarray(Image.open(record["file_name"]))
        assert image.shape == (record["height"], record["width"], 3) == (SIZE, SIZE, 3)
        # JPEG at quality 95; with blue and red swapped the mean difference is above 30.
        assert np.abs(image.astype(int) - scene.image).mean() < 4
        assert [a["category_id"] for a in record["annotations"]] == scene.labels


def test_inks_are_warm(split):
    """What makes the channel order matter: red over green over blue in every fully inked pixel."""
    for scene in scenes(split):
        for mask in scene.masks:
            inked = mask.reshape(SIZE, digit_scenes.CELLS, SIZE, digit_scenes.CELLS).all((1, 3))
            red, green, blue = scene.image[inked].T.astype(int)
            assert inked.any() and (red > green).all() and (green > blue).all()


def test_splits_share_no_digit_and_no_pixel(root):
    used = {split: read(root, split)["images"] for split in NUM}
    pretraining = list(digit_scenes.pretraining_scenes(50, size=SIZE, seed=3))
    learnt_from = {d for image in used["train"] for d in image["digits"]}
    learnt_from |= {d for scene in pretraining for d in scene.digits}
    tested_on = {d for image in used["test"] for d in image["digits"]}
    assert learnt_from <= set(range(1297)) and tested_on <= set(range(1297, 1797))
    right_edges = [x + w for image in used["train"] for x, _, w, _ in [image["photo_region"]]]
    right_edges += [scene.region[0] + scene.region[2] for scene in pretraining]
    left_edges = [image["photo_region"][0] for image in used["test"]]
    assert max(right_edges) <= 432 <= min(left_edges)


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_spoiling_the_other_split_changes_nothing(split, other, monkeypatch):
    """The proof that what is recorded is all that was used: the other split's sources are overwritten."""

    def make():
        made = [digit_scenes.make_scene(split, size=SIZE, seed=(i,)) for i in range(20)]
        if split == "train":
            made += digit_scenes.pretraining_scenes(20, size=SIZE, seed=0)
        return [scene.image for scene in made]

    before = make()
    strokes, classes = (array.copy() for array in digit_scenes._load_digits())
    photos = {name: load_sample_image(f"{name}.jpg").copy() for name in digit_scenes.PHOTOS}
    strokes[digit_scenes.DIGITS[other]] = 1
    x, y, width, height = digit_scenes.REGIONS[other]
    for photo in photos.values():
        photo[y : y + height, x : x + width] = 255
    monkeypatch.setattr(digit_scenes, "_load_digits", lambda: (strokes, classes))
    monkeypatch.setattr(digit_scenes, "_load_photo", photos.get)
    np.testing.assert_array_equal(make(), before)
    spoilt = digit_scenes.make_scene(other, size=SIZE, seed=(0,)).image
    monkeypatch.undo()
    assert (spoilt != digit_scenes.make_scene(other, size=SIZE, seed=(0,)).image).any()


def test_arguments_are_recorded(root, tmp_path):
    asked = {"num_train": NUM["train"], "num_test": NUM["test"], "size": SIZE, "seed": 3}
    assert digits_dataset.read_info(root) == digits_dataset.describe(**asked)
    assert digits_dataset.read_info(tmp_path) is None


def test_a_digits_dataset_is_replaced_and_anything_else_is_not(tmp_path):
    folder = tmp_path / "digits"
    write(folder, num_train=1, num_test=1)
    write(folder, num_train=2, num_test=1)
    assert len(list((folder / "train").iterdir())) == 2
    treasure = tmp_path / "thesis" / "chapter.txt"
    treasure.parent.mkdir()
    treasure.write_text("mine")
    with pytest.raises(InputError, match="something else"):
        write(treasure.parent)
    assert treasure.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "thesis"]


def test_a_failure_leaves_the_old_dataset(tmp_path):
    folder = tmp_path / "digits"
    write(folder, num_train=1, num_test=1)
    before = bytes_below(folder)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(folder, on_scene=fail)
    assert bytes_below(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 31}, "size from 32 to 208"),
        ({"size": 209}, "size from 32 to 208"),
        ({"num_train": 0}, "num_train is 0"),
        ({"num_test": -1}, "num_test is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        write(tmp_path / "digits", **changes)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "file" / "digits")


def test_it_is_registered_where_detectron2_looks(tmp_path):
    """In a process of its own: the folder is read once, when the package is imported."""
    script = (
        "import sys, ssl_backbones.data; from detectron2.data import MetadataCatalog as catalog\n"
        "for split in ('train', 'test'):\n"
        "    metadata = catalog.get(f'digits_{split}')\n"
        "    print(metadata.json_file, metadata.image_root, sep='\\n')\n"
        "print('sklearn' in sys.modules, 'cv2' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={"DETECTRON2_DATASETS": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    folder = tmp_path / "digits"
    assert done.stdout.splitlines()[:4] == [
        str(folder / "annotations" / "train.json"),
        str(folder / "train"),
        str(folder / "annotations" / "test.json"),
        str(folder / "test"),
    ]
    assert done.stdout.splitlines()[4].startswith("False")


def test_registered_names_load(root):
    register_digits(root, prefix="digits_here")
    assert len(DatasetCatalog.get("digits_here_train")) == NUM["train"]
    metadata = MetadataCatalog.get("digits_here_test")
    assert metadata.made_by == DIGITS_COMMAND
    assert metadata.thing_classes == list("0123456789")
    assert metadata.evaluator_type == "coco"
