"""The command that looks at data of one's own: what it says, where it ends, and what it writes."""

import copy
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "check_data.py"
SIZES = {"train": [(96, 80), (80, 96), (40, 30)], "val": [(96, 80), (96, 80)]}


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("check_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def shapes(tmp_path) -> dict:
    """Contents of two splits by name, whose images lie in folders of their names in `tmp_path`/shapes.

    Of each image the first object is a box and the second a disc; the box has an area of 20 * 25.
    """
    contents = {}
    for split, sizes in SIZES.items():
        folder = tmp_path / "shapes" / split
        folder.mkdir(parents=True)
        content = {"images": [], "annotations": [], "categories": []}
        for number, (width, height) in enumerate(sizes):
            name = f"{split}_{number}.png"
            Image.new("RGB", (width, height), (9, len(split), number)).save(folder / name)
            image = {"id": number, "file_name": name, "width": width, "height": height}
            content["images"].append(image)
            for category in (1, 2):
                box = {"id": 2 * number + category, "image_id": number, "category_id": category}
                box |= {"bbox": [12, 3, 20, 25], "area": 500, "iscrowd": 0}
                content["annotations"].append(box)
        content["categories"] = [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}]
        contents[split] = content
    return contents


@pytest.fixture
def check(main, shapes, tmp_path, capsys):
    """Writes the contents and looks at the folder, or at what is named; gives status, output and errors."""

    def check(*words, path="."):
        for split, content in shapes.items():
            (tmp_path / "shapes" / f"{split}.json").write_text(json.dumps(content))
        status = main([str((tmp_path / "shapes" / path).resolve()), *map(str, words)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return check


def cells(printed: str) -> dict[str, list[str]]:
    """Rows of tables by their heads."""
    lines = (line.split("  ") for line in printed.splitlines() if "  " in line.strip())
    rows = ([cell.strip() for cell in line if cell.strip()] for line in lines)
    return {head: rest for head, *rest in rows}


def test_clean_data(check, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(TOOL)])
    status, printed, errors = check()
    assert (status, errors) == (0, "")
    folder = tmp_path / "shapes"
    assert printed.startswith(f"{folder}: ")
    assert "Problems:" not in printed and "Odd:" not in printed and "Read as" not in printed
    table = cells(printed)
    assert table["images"] == ["3", "2"]
    assert table["smallest image"] == ["40 x 30", "96 x 80"]
    assert table["classes"] == ["2", "2"]
    assert table["objects"] == ["6", "4"]
    assert table["small, medium, large"] == ["6, 0, 0", "4, 0, 0"]
    assert table["in an image: mean, most"] == ["2.0, 2", "2.0, 2"]
    assert table["disc"] == ["3", "2"]
    last = printed.splitlines()[-1]
    train = f"{sys.executable} {TOOL.with_name('train_net.py')}"
    assert last == f"Next: {train} --data {folder} --init CHECKPOINT"


def test_of_a_test_set_alone_no_training_is_told(check, shapes):
    del shapes["train"]
    status, printed, _ = check()
    assert status == 0 and "Next:" not in printed
    assert printed.splitlines()[-1].startswith("There is no split to train on (val)")
    # A file that is named is trained on, whatever it is called.
    assert "Next:" in check(path="val.json")[1]


def test_what_is_read_and_what_is_odd_is_said_with_its_file(check, shapes, tmp_path):
    del shapes["train"]["annotations"][0]["iscrowd"]
    shapes["val"]["annotations"][1]["iscrowd"] = 1
    status, printed, _ = check()
    assert status == 0
    train, val = (tmp_path / "shapes" / f"{split}.json" for split in SIZES)
    read, odd = printed.split("Read as it is meant:")[1].split("Odd:")
    assert read.strip().startswith(f"- {train}: iscrowd is missing in 1 annotation")
    assert f"- {val}: 1 of 4 annotations are crowds" in odd
    assert cells(printed)["crowds"] == ["0", "1"]


def test_every_problem_is_listed_and_counted(check, shapes, tmp_path):
    for annotation in shapes["train"]["annotations"]:
        annotation["bbox"] = [0.1, 0.2, 0.3, 0.4]
    shapes["train"]["categories"].append({"id": 2, "name": "ring"})
    folder = tmp_path / "shapes"
    (folder / "val" / "val_1.png").unlink()
    (folder / "val" / "val_0.png").write_bytes(b"no image")
    status, printed, error = check()
    assert status == 2
    problems = printed.split("Problems:")[1].strip().splitlines()
    assert problems[:2] == [
        f"- {folder / 'train.json'}: category id 2 stands there twice; give each its own",
        f"- {folder / 'train.json'}: 6 of 6 boxes lie between 0 and 1 (first: annotation 1): written as "
        "shares of the image? give x, y, width and height in pixels",
    ]
    for problem, name in zip(problems[2:4], ("val_0.png", "val_1.png"), strict=True):
        assert problem.startswith(
            f"- {folder / 'val.json'}: image {folder / 'val' / name} cannot be used"
        )
    assert f"error: {len(problems)} problems, listed above" in error
    assert error.count("\n") == 1


def test_of_many_images_that_are_missing_ten_are_listed(check, shapes, tmp_path):
    images = shapes["train"]["images"]
    images += [{**images[0], "id": 100 + n, "file_name": f"gone_{n}.png"} for n in range(12)]
    status, printed, _ = check("--split", "train")
    assert status == 2
    problems = printed.split("Problems:")[1].strip().splitlines()
    assert len(problems) == 11
    assert problems[-1].endswith("train.json: 2 more of its 15 images cannot be used")


def test_a_file_that_cannot_be_read_does_not_hide_the_other(check, shapes):
    shapes["val"]["annotations"][0]["bbox"] = None
    status, printed, error = check()
    assert status == 2 and "1 problem, listed above" in error
    assert "Traceback" not in printed + error
    assert cells(printed)["images"] == ["3"]


def test_the_printed_command_would_refuse_objects_of_which_some_have_no_mask(check, shapes):
    shapes["train"]["annotations"][0]["segmentation"] = [[12, 3, 32, 3, 32, 28, 12, 28]]
    status, printed, _ = check("--split", "train")
    assert status == 2 and "Next:" not in printed
    assert "5 of 6 objects have no mask (first: annotation 2): give them one" in printed


def rename(content, name):
    content["categories"][1]["name"] = name


def turn(content):
    content["categories"].reverse()
    for id_, category in enumerate(content["categories"], 1):
        category["id"] = id_
    for annotation in content["annotations"]:
        annotation["category_id"] = 3 - annotation["category_id"]


def test_classes_of_another_order_are_told_and_other_classes_are_refused(check, shapes):
    turn(shapes["val"])
    status, printed, _ = check()
    assert status == 0
    assert (
        "val.json: class 0 is 'box' in train and 'disc' in val: its classes are read by" in printed
    )
    rename(shapes["val"], "ring")
    status, printed, _ = check()
    assert status == 2
    assert "val.json: class 0 is 'box' in train and 'disc' in val; give all splits" in printed


def test_images_of_two_splits(check, shapes):
    for image in shapes["val"]["images"]:
        image["file_name"] = f"../train/train_{'0'}.png"
    status, printed, _ = check()
    assert status == 2
    assert "val.json: shares 1 images with train, such as " in printed
    assert "/shapes/train/train_0.png; take them out of one of the two" in printed


def test_files_of_the_same_bytes_in_train_and_another_split(check, tmp_path):
    folder = tmp_path / "shapes"
    (folder / "val" / "val_1.png").write_bytes((folder / "train" / "train_0.png").read_bytes())
    (folder / "val" / "val_0.png").write_bytes((folder / "train" / "train_0.png").read_bytes())
    status, printed, _ = check()
    assert status == 0
    assert (
        f"- {folder}/val.json: image files that train has too, byte for byte: 2 (first: "
        f"{folder}/val/val_0.png as {folder}/train/train_0.png): AP on them"
    ) in printed.split("Odd:")[1]
    # Of a file that is not there nothing is compared, nor of a single split.
    (folder / "val" / "val_0.png").unlink()
    assert "byte for byte: 1 (first" in check()[1]
    assert "byte for byte" not in check("--split", "val")[1]


def test_equal_files_of_one_split_are_not_odd(check, tmp_path):
    folder = tmp_path / "shapes"
    (folder / "val" / "val_1.png").write_bytes((folder / "val" / "val_0.png").read_bytes())
    assert "byte for byte" not in check()[1]
    # Nor are those of a split that is trained and tested on, which is said otherwise.
    both = folder / "data.yaml"
    both.write_text("train: val.json\nval: val.json\n")
    printed = check(path="data.yaml")[1]
    assert "is trained and tested on" in printed and "byte for byte" not in printed


def test_the_page_says_what_is_printed(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, _ = check("--page")
    assert status == 0 and "Page: shapes_data.html (open it in a browser)" in printed
    page = Path("shapes_data.html").read_text()
    assert '<th scope="row">smallest image</th><td>40 x 30</td><td>96 x 80</td>' in page
    discs = page.partition('<th scope="row">disc</th>')[2].partition("</tr>")[0]
    assert ">3</span>" in discs and ">2</span>" in discs
    assert "3 images, 6 objects, 2 classes" in page and "COCO files in shapes: train, val" in page
    assert page.count("<img ") == 5
    # Nothing else is left behind.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes", "shapes_data.html"]


def test_the_page_is_written_of_data_with_problems_and_replaces_the_old_one(
    check, shapes, tmp_path
):
    page = tmp_path / "of.html"
    page.write_text("old")
    shapes["train"]["annotations"][0]["category_id"] = 9
    (tmp_path / "shapes" / "val" / "val_1.png").unlink()
    status, printed, error = check("--page", page)
    assert status == 2 and f"Page: {page} (open it" in printed and "2 problems" in error
    text = page.read_text()
    for line in printed.split("Problems:")[1].split("\n\n")[0].strip().splitlines():
        assert line.removeprefix("- ").replace("'", "&#39;") in text
    assert text.index("Problems:") < text.index("What is there")
    # Of what cannot be read, too.
    for split in shapes:
        shapes[split]["annotations"][0]["bbox"] = None
    assert check("--page", page)[0] == 2
    assert "No split could be read." in page.read_text()


def test_fix_writes_coco_s_own_form_to_a_new_file(check, shapes, tmp_path):
    clean = copy.deepcopy(shapes["train"])
    for annotation in shapes["train"]["annotations"]:
        annotation["iscrowd"] = "0"
        annotation["bbox"] = [str(number) for number in annotation["bbox"]]
        del annotation["area"]
    out = tmp_path / "mended.json"
    status, printed, _ = check("--split", "train", "--fix", out)
    assert status == 0
    assert json.loads(out.read_text()) == clean
    assert f"Written, with the 3 changes that are told above: {out}" in printed
    # The source is as it was.
    assert json.loads((tmp_path / "shapes" / "train.json").read_text()) == shapes["train"]
    before = out.read_bytes()
    status, _, error = check("--split", "train", "--fix", out)
    assert status == 2 and "there is such a file already" in error
    assert out.read_bytes() == before


def test_nothing_is_written_of_a_file_that_needs_no_mending_or_that_cannot_be_read(
    check, shapes, tmp_path
):
    out = tmp_path / "mended.json"
    assert "own form already" in check("--fix", out, path="train.json")[1]
    shapes["train"]["annotations"][0]["category_id"] = None
    status, printed, _ = check("--fix", out, path="train.json")
    assert status == 2 and "is not written: the file cannot be read" in printed
    assert not out.exists()


def test_images_elsewhere(check, shapes, tmp_path):
    (tmp_path / "shapes" / "train").rename(tmp_path / "elsewhere")
    status, printed, _ = check("--images", tmp_path / "elsewhere", path="train.json")
    assert status == 0
    assert cells(printed)["images"] == ["3"]
    assert "Next:" not in printed


@pytest.mark.parametrize(
    ("words", "path", "message"),
    [
        ([], "nowhere", "nowhere"),
        (["--split", "test"], ".", "has no such split; there are train, val"),
        (["--fix", "out.json"], ".", "--fix writes one file: choose it by --split (train, val)"),
        (["--fix", "/dev/null/out.json", "--split", "val"], ".", "/dev/null/out.json"),
        (["--page", "val.json"], ".", "--page val.json: give a file that ends in .html, or none"),
        (["--page", "/nowhere/of.html"], ".", "--page /nowhere/of.html: give a file in a folder"),
        (["--images", "/nowhere"], "val.json", "--images /nowhere: there is no such folder"),
        (["--images", "/"], ".", "--images is of a single COCO file"),
        (["--images", "/", "--val-share", "0.3"], "val.json", "--val-share with --images, which"),
    ],
)
def test_mistakes_are_one_line(check, shapes, words, path, message):
    del shapes["val"]["annotations"][0]["iscrowd"]
    status, _, error = check(*words, path=path)
    assert status == 2
    assert message in error and error.count("\n") == 1


def test_what_a_file_holds_does_not_steer_the_terminal(check, shapes):
    shapes["train"]["categories"].append({"id": 3, "name": "\x1b[31mred"})
    status, printed, _ = check("--split", "train")
    assert status == 0
    assert "\x1b" not in printed and "\\x1b[31mred" in printed


def test_what_the_page_needs_is_asked_for_before_the_data_is_looked_at(check, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    status, printed, error = check("--page")
    assert (status, printed) == (2, "") and "pip install -e '.[report]'" in error


def test_help_needs_no_torch(run_tool):
    code = (
        "import runpy, sys; sys.argv = ['check_data.py', '--help']\n"
        f"try:\n    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert "examples:" in result.stdout
