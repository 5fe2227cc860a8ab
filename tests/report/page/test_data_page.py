"""The page of data: what stands in it, and which images are shown."""

import base64
import re

import numpy as np
import pytest
from PIL import Image
from small_report import SCRIPT

from ssl_backbones.data.annotations.examining import examine
from ssl_backbones.report.page import data_page
from ssl_backbones.report.page.data_page import (
    SplitContent,
    choose,
    format_data_page,
    odd_images,
    table_of_sizes,
)
from ssl_backbones.tables import Table

BOX = [4, 6, 20, 25]


@pytest.fixture
def make(tmp_path):
    """Writes images of 64 x 48 pixels and gives the split; an object is its class, or a dict with one."""

    def make(split, images, faults=(), **options):
        (tmp_path / split).mkdir(exist_ok=True)
        of_objects = [
            one if isinstance(one, dict) else {"class": one} for some in images for one in some
        ]
        names = sorted({one["class"] for one in of_objects})
        content = {"categories": [{"id": 7 + n, "name": name} for n, name in enumerate(names)]}
        content |= {"images": [], "annotations": []}
        for number, objects in enumerate(images):
            name = options.get("name", "{}.png").format(number)
            Image.new("RGB", (64, 48), (50, 90, 20 * number)).save(tmp_path / split / name)
            image = {"id": number, "file_name": name, "width": 64, "height": 48}
            content["images"].append(image)
            for one in objects:
                one = one if isinstance(one, dict) else {"class": one}
                annotation = {"id": len(content["annotations"]), "image_id": number}
                annotation |= {"bbox": BOX, "area": 500, "iscrowd": 0, **one}
                annotation["category_id"] = 7 + names.index(annotation.pop("class"))
                content["annotations"].append(annotation)
        reasons = {str(tmp_path / split / f"{n}.png"): "it is damaged" for n in faults}
        counts = examine(content, split).counts
        return SplitContent(str(tmp_path / split), content, counts, reasons)

    return make


def page_of(splits, findings=(), duplicates=(), tables=()):
    facts = {"path": "/data", "read as": "COCO files"}
    return format_data_page("parts", facts, dict(findings), tables, splits, duplicates)


def pictures(page):
    """Of alternative texts the sizes of the files."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', page)
    return {alt: len(base64.b64decode(data)) for data, alt in found}


def test_the_rarest_classes_are_shown_and_each_split_as_often(make):
    common = [["cup"]] * 30
    train = make("train", [*common[:17], ["cup", "spoon"], *common, ["fork"], ["fork"]])
    splits = {"train": train, "val": make("val", [*common, ["knife", "cup"]])}
    chosen = choose(splits)
    assert len(chosen) == len(set(chosen)) == 12
    assert [split for split, _ in chosen] == ["train"] * 6 + ["val"] * 6
    assert ("train", 17) in chosen and ("val", 30) in chosen
    assert len({("train", 48), ("train", 49)} & set(chosen)) == 1
    assert chosen == choose(splits)
    others = {tuple(choose(splits, seed=seed)) for seed in range(9)}
    assert len(others) > 5


def test_what_cannot_be_used_or_has_no_object_is_not_chosen(make):
    train = make("train", [["cup"], [], ["cup"], ["cup"]], faults=[2])
    assert sorted(choose({"train": train})) == [("train", 0), ("train", 3)]
    # A small split leaves its places to the others.
    splits = {"train": make("more", [["cup"]] * 40), "val": train}
    assert [split for split, _ in choose(splits)] == ["train"] * 10 + ["val"] * 2
    # Images are shown also of data without any object, and none of none.
    assert sorted(choose({"test": make("test", [[], []])})) == [("test", 0), ("test", 1)]
    assert choose({"test": make("bad", [["cup"]], faults=[0])}) == choose({}) == []


MASK = [[4, 6, 24, 6, 24, 31]]


def test_odd_images_and_why(make):
    masked = {"class": "cup", "segmentation": MASK}
    images = [
        [masked] * 2,
        [masked, {"class": "cup"}],
        [{**masked, "bbox": [4, 6, 20, 0.5]}, masked],
        [{**masked, "bbox": [46, 6, 20, 25]}, {**masked, "bbox": [4, -2, 20, 25]}],
        [{**masked, "bbox": [45, 6, 20, 43]}],  # to 65 of 64, 49 of 48: one pixel is none
        [masked] * 9,
        [{"class": "cup", "iscrowd": 1}],
        [],
    ]
    split = make("train", images, faults=[7])
    # 17 objects and one below a pixel in 8 images.
    assert odd_images({"train": split}) == {
        ("train", 1): "objects without a mask: 1 of 2",
        ("train", 2): "boxes less than one pixel wide or high: 1 of 2",
        ("train", 3): "boxes that reach outside the image: 2 of 2",
        ("train", 5): "9 objects, the most in train, where the mean is 2.2",
        ("train", 7): "cannot be used: it is damaged",
    }
    # Of boxes alone no mask is missing; and a single object is never many.
    assert odd_images({"train": make("boxes", [["cup"], [], []])}) == {}


def test_odd_images_are_the_worst_of_each_kind_in_turn(make):
    thin = {"class": "cup", "bbox": [4, 6, 20, 0]}
    images = [[thin] * (1 + n % 5) for n in range(20)] + [[{"class": "cup", "bbox": [60, 0, 9, 9]}]]
    found = odd_images({"train": make("train", images)})
    assert len(found) == 12
    assert list(found)[:3] == [("train", 4), ("train", 20), ("train", 9)]
    both = make("both", [[{"class": "cup", "bbox": [60, 0, 9, 0]}]], faults=[0])
    assert odd_images({"val": both}) == {
        ("val", 0): "boxes less than one pixel wide or high: 1 of 1; boxes that reach outside the "
        "image: 1 of 1; cannot be used: it is damaged"
    }


def test_each_class_has_a_bar_against_the_most_of_its_split(make):
    splits = {"train": make("train", [["cup"] * 8, ["fork"]]), "val": make("val", [["fork"] * 4])}
    classes = Table("Objects by class", ["", *splits], [["<cup>", 8, None], ["fork", 1, 4]])
    page = page_of(splits, tables=[Table("What is there", ["", *splits], []), classes])
    table = page[page.index("Objects by class") :].partition("</table>")[0]
    assert '<th scope="row">&lt;cup&gt;</th>' in table
    bars = re.findall(r'class="bar" style="[^"]*--ap: ([\d.]+)%">(\d+)</span>', table)
    assert bars == [("100.0", "8"), ("0.0", "0"), ("12.5", "1"), ("100.0", "4")]


def test_sizes_of_objects(make):
    # COCO: small below 32 * 32, large from 96 * 96 on.
    areas = [1, 1023, 1024, 9215, 9216, 1e9, 0, -3]
    crowd = {"class": "cup", "area": 1024, "iscrowd": 1}
    split = make("train", [[{"class": "cup", "area": area} for area in areas], [crowd]])
    table = table_of_sizes({"train": split, "val": make("val", [[]])})
    assert dict((head, (train, val)) for head, train, val in table.rows) == {
        "0 to 8": (3, 0),
        "8 to 16": (0, 0),
        "16 to 32": (1, 0),
        "32 to 64": (1, 0),
        "64 to 96": (1, 0),
        "96 to 192": (1, 0),
        "192 to 384": (0, 0),
        "384 to 768": (0, 0),
        "768 and more": (1, 0),
    }


def test_pictures_have_masks_boxes_and_names(make):
    splits = {"train": make("train", [[{"class": "cup", "segmentation": MASK}, "fork"]])}
    ((_, example, _),) = data_page._drawn({("train", 0): ""}, splits)
    (picture,) = example.pictures
    assert picture.alt == "0.png, ground truth: 1 × cup, 1 × fork"
    plain = np.asarray(Image.new("RGB", (64, 48), (50, 90, 0)))
    # 48 pixels are enlarged to 336.
    changed = (picture.pixels != plain.repeat(7, axis=0).repeat(7, axis=1)).any(2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), columns.max(), rows.max()) == (4 * 7, 24 * 7 - 1, 31 * 7 - 1)
    # Inside the mask's corner, and beside it.
    assert changed[12 * 7, 20 * 7] and not changed[25 * 7, 8 * 7]


def test_names_are_escaped(make):
    name = f"{SCRIPT.replace('/', '%')} &amp; {{}}.png"
    train = make("train", [[SCRIPT], [{"class": SCRIPT, "bbox": [0, 0, 9, 0]}]], name=name)
    page = page_of({SCRIPT: train}, {"Problems:": [SCRIPT], "Odd:": ["<b>"]})
    assert "<script" not in page and "<b>" not in page
    assert page.count("&lt;script&gt;") > 8 and "&amp;amp; 0.png" in page


def test_what_cannot_be_drawn_is_said_and_nothing_stops_the_page(make, tmp_path):
    # 4 of 3,072 pixels, over which pycocotools would loop; and a box beyond all integers of C.
    unfit = {"class": "cup", "segmentation": {"size": [48, 64], "counts": [3, 1]}}
    far = {"class": "cup", "bbox": [-1e300, 0, 1e300, 1e300]}
    images = [[unfit, far], [["cup"] * 400][0], ["cup"], ["cup"]]
    train = make("train", images, faults=[2, 3])
    (tmp_path / "train" / "3.png").write_bytes(b"no image")
    page = page_of({"train": train})
    assert "0.png, ground truth: 2 × cup" in pictures(page)
    assert "1.png, ground truth: 300 × cup" in pictures(page)
    assert "(300 of its 400 annotations are drawn)" in page
    assert re.search(r"train/3\.png cannot be drawn: [^<]+<", page)
    assert "2.png, ground truth: 1 × cup" in pictures(page)
    assert page.count("cannot be used: it is damaged") == 2


@pytest.mark.parametrize("kind", ["nothing", "no object", "no image"])
def test_a_page_is_made_of_data_with(make, kind):
    splits = {
        "nothing": {},
        "no object": {"test": make("test", [[], []])},
        "no image": {"train": make("train", [["cup"]], faults=[0])},
    }[kind]
    page = page_of(splits, {"Problems:": ["there is one"], "Odd:": []})
    assert "<li>there is one</li>" in page and "Odd:" not in page
    assert len(pictures(page)) == {"nothing": 0, "no object": 2, "no image": 1}[kind]
    assert ("There are no images that can be used." in page) == (kind != "no object")
    assert "Nothing is wrong" not in page and "Nothing is wrong" in page_of(splits)


def test_files_of_two_splits(make, tmp_path):
    splits = {split: make(split, [["cup"]] * 8) for split in ("train", "val")}
    paths = {split: [str(tmp_path / split / f"{n}.png") for n in range(8)] for split in splits}
    pairs = [[("train", paths["train"][n]), ("val", paths["val"][n])] for n in range(7)]
    pairs[1] += [("val", path) for path in paths["val"][2:8]]
    page = page_of(splits, duplicates=pairs)
    section = page[page.index('id="duplicates"') :]
    assert "<li>train: 0.png; val: 0.png</li>" in section
    shown = "".join(f"; val: {n}.png" for n in range(1, 6))
    assert f"<li>train: 1.png{shown}; and 2 more</li>" in section
    assert "No two splits have" in page_of(splits)
    many = page_of(splits, duplicates=pairs * 10)
    assert "<li>20 more</li>" in many


def test_pictures_become_smaller(make, monkeypatch):
    splits = {"train": make("train", [["cup"]] * 12)}
    whole = pictures(page_of(splits))
    assert len(whole) == 12
    monkeypatch.setattr(data_page, "MOST_BYTES", sum(whole.values()))
    smaller = pictures(page_of(splits))
    assert len(smaller) == 12 and sum(smaller.values()) < sum(whole.values())
