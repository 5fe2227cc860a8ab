"""What a config takes from data of one's own: classes, masks, and what is refused before a model is built."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from own_data import own_data, rewrite
from pycocotools import mask as coco_mask

from ssl_backbones.data.own_data import (
    RECORD,
    changed_since,
    content_hashes,
    read_record,
    trained_categories,
    write_record,
)
from ssl_backbones.data.preparing import forget, prepare
from ssl_backbones.engine.config import data_overrides, load_config
from ssl_backbones.engine.recipe import fingerprint
from ssl_backbones.errors import InputError


@pytest.fixture
def root(digits, tmp_path):
    return own_data(digits, tmp_path / "shapes")


@pytest.fixture(autouse=True)
def forgotten():
    """Datasets that a test registers are forgotten after it."""
    known = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - known:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def load(root, *overrides, classes=None, config="moco_1x"):
    return load_config(config, [*data_overrides(str(root), classes), *overrides])


def both(root, change):
    for name in ("train", "val"):
        rewrite(root / f"{name}.json", change)


def refusal(act, *arguments, **options):
    with pytest.raises(InputError) as raised:
        act(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def objects(name):
    return [a for record in DatasetCatalog.get(name) for a in record["annotations"]]


def test_the_number_of_classes_is_the_datas(root):
    cfg = load(root)
    assert cfg.model.roi_heads.num_classes == 10
    assert cfg.dataloader.train.dataset.names == "shapes_train"
    assert cfg.dataloader.test.dataset.names == "shapes_val"
    # What the user says stays, and is refused where it is not the data's.
    message = refusal(load, root, "model.roi_heads.num_classes=9")
    assert "has 10 classes (0, 1, 2, 3, 4, ...) and model.roi_heads.num_classes=9" in message


def test_a_split_of_its_own_by_path(root):
    test = f"dataloader.test.dataset.names={root / 'train.json'}"
    cfg = load(root, test)
    assert cfg.dataloader.test.dataset.names == cfg.dataloader.train.dataset.names == "shapes_train"
    cfg = load_config(
        "moco_1x",
        [f"dataloader.{role}.dataset.names={root / 'val.json'}" for role in ("train", "test")],
    )
    assert cfg.dataloader.train.dataset.names == "shapes_val"
    assert cfg.model.roi_heads.num_classes == 10


def test_a_category_without_objects_counts_and_is_named(root):
    """Roboflow's grouping category: with one class too few, discs would be background."""

    def group(content):
        content["categories"].append({"id": 0, "name": "shapes"})

    both(root, group)
    assert load(root).model.roi_heads.num_classes == 11
    for name in ("train", "val"):
        register_coco_instances(f"own_{name}", {}, str(root / f"{name}.json"), str(root / name))
    names = [
        f"dataloader.{r}.dataset.names=own_{n}" for r, n in (("train", "train"), ("test", "val"))
    ]
    message = refusal(prepare, load_config("moco_1x", [*names, "model.roi_heads.num_classes=10"]))
    assert "has 11 classes" in message and "no object is of shapes" in message


def test_kept_classes_have_the_order_that_was_asked_for(root):
    content = json.loads((root / "train.json").read_text())
    by_id = {one["id"]: one["name"] for one in content["categories"]}
    of = [by_id[one["category_id"]] for one in content["annotations"]]
    cfg = load(root, classes="7, 3")
    assert cfg.model.roi_heads.num_classes == 2
    counts = [sum(a["category_id"] == n for a in objects("shapes_train")) for n in (0, 1)]
    assert counts == [of.count("7"), of.count("3")] and min(counts) > 0
    assert MetadataCatalog.get("shapes_train").thing_classes == ["7", "3"]
    assert MetadataCatalog.get("shapes_val").thing_classes == ["7", "3"]
    said = "; ".join(prepare(cfg))
    assert f"the classes 7, 3 are kept; objects left out: {of.count('0')} of 0, " in said
    assert "has no class 'ten' to keep; there are 0, 1, 2" in refusal(load, root, classes="7,ten")
    assert "the class '3' is to be kept twice" in refusal(load, root, classes="3,3")


def test_other_classes_in_the_test_set_are_refused_by_the_first_that_differs(root):
    rewrite(root / "val.json", lambda content: content["categories"][4].update(name="four"))
    message = refusal(load, root)
    assert "val.json) has other classes than dataset 'shapes_train'" in message
    assert "class 4 is '4' in that and 'four' in this" in message


def test_a_test_set_may_list_only_the_classes_that_it_has(root):
    content = json.loads((root / "val.json").read_text())
    used = {one["category_id"] for one in content["annotations"]}
    unused = next(one["id"] for one in content["categories"] if one["id"] not in used)

    def drop(content):
        content["categories"] = [one for one in content["categories"] if one["id"] != unused]

    load(root)
    before = objects("shapes_val")
    rewrite(root / "val.json", drop)
    load(root)
    assert objects("shapes_val") == before


def test_boxes_alone_make_a_model_of_boxes(root):
    def without_masks(content):
        for one in content["annotations"]:
            del one["segmentation"]

    both(root, without_masks)
    cfg = load(root)
    assert not [key for key in cfg.model.roi_heads if key.startswith("mask_")]
    assert cfg.dataloader.train.mapper.use_instance_mask is False
    assert "its objects have no masks: the model learns boxes alone" in "; ".join(prepare(cfg))


def test_some_objects_without_masks_are_refused(root):
    rewrite(root / "train.json", lambda content: content["annotations"][2].pop("segmentation"))
    count = len(json.loads((root / "train.json").read_text())["annotations"])
    assert f"1 of {count} objects have no mask (first: annotation 3)" in refusal(load, root)


def test_test_objects_without_masks_are_evaluated_by_their_boxes(root):
    def without_masks(content):
        for one in content["annotations"]:
            one["segmentation"] = None

    rewrite(root / "val.json", without_masks)
    cfg = load(root)
    assert list(cfg.dataloader.evaluator.tasks) == ["bbox"]
    assert "mask_head" in cfg.model.roi_heads


def test_boxes_alone_may_be_trained_where_some_objects_have_masks(root):
    """As the refusal says; Detectron2's mapper fails on such data."""
    rewrite(root / "train.json", lambda content: content["annotations"][2].pop("segmentation"))
    cfg = load(root, "model.roi_heads.mask_in_features=null")
    assert cfg.dataloader.train.mapper.use_instance_mask is False


def test_run_lengths_are_not_read_as_polygons(root):
    mask = {"size": [64, 64], "counts": [2000, 2, 64 * 64 - 2002]}
    box = [31, 16, 1, 2]
    rewrite(root / "train.json", lambda c: c["annotations"][0].update(segmentation=mask, bbox=box))
    form = "dataloader.train.mapper.instance_mask_format=polygon"
    assert "instance_mask_format=polygon does not read: set it" in refusal(load, root, form)


def test_two_training_sets_have_masks_both_or_neither(root, digits, tmp_path):
    other = own_data(digits, tmp_path / "boxes")
    rewrite(other / "train.json", lambda c: [a.pop("segmentation") for a in c["annotations"]])
    names = f"dataloader.train.dataset.names=['{root}','{other}']"
    assert "'boxes_train'" in (said := refusal(load, root, names)) and "has no masks" in said


def test_a_test_set_without_labels_leaves_the_evaluator_as_it_is(root):
    """As COCO's own: the masks are written for those who have the labels."""
    rewrite(root / "val.json", lambda content: content.pop("annotations"))
    assert "tasks" not in load(root).dataloader.evaluator


def test_run_lengths_of_objects_are_learnt_as_bitmaps(root):
    """Uncompressed ones, beside polygons; what Detectron2 decodes is the polygon's own raster."""
    first = json.loads((root / "train.json").read_text())["annotations"][0]
    raster = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(first["segmentation"], 64, 64)))
    flat = raster.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], edges, [64 * 64]])).tolist()
    assert sum(counts) == 64 * 64

    def encode(content):
        content["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": counts}

    rewrite(root / "train.json", encode)
    cfg = load(root)
    assert cfg.dataloader.train.mapper.instance_mask_format == "bitmask"
    (read,) = [a for a in objects("shapes_train") if isinstance(a["segmentation"], dict)]
    assert (coco_mask.decode(read["segmentation"]) == raster).all()
    # Of crowds nothing is learnt, and polygons stay polygons.
    rewrite(root / "train.json", lambda content: content["annotations"][0].update(iscrowd=1))
    assert "instance_mask_format" not in load(root).dataloader.train.mapper


def test_the_recipe_is_of_the_content_and_not_of_the_place(root, digits, tmp_path):
    other = own_data(digits, tmp_path / "elsewhere" / "numbers")
    one, same = (fingerprint(load(path, "train.init_checkpoint=")) for path in (root, other))
    assert one == same
    rewrite(other / "train.json", lambda content: content["annotations"].pop())
    assert fingerprint(load(other, "train.init_checkpoint=")) != one
    assert fingerprint(load(root, "train.init_checkpoint=", classes="3,7")) != one


@pytest.mark.parametrize("name", ["it's", "a=b, c", "#1 {x}", "back\\slash", "ümläut ☃", "end\\"])
def test_any_path_can_be_given(digits, tmp_path, name):
    root = own_data(digits, tmp_path / name)
    cfg = load(root, classes="3,7")
    assert cfg.train.data == str(root) and list(cfg.train.classes) == ["3", "7"]


@pytest.mark.parametrize("classes", ["7", "[7]", "'7'"])
def test_one_class_may_be_named_in_any_way(root, classes):
    cfg = load(root, f"train.classes={classes}")
    assert cfg.model.roi_heads.num_classes == 1
    assert MetadataCatalog.get("shapes_train").thing_classes == ["7"]


def test_classes_are_chosen_of_cocos_format_alone(miniatures):
    names = [
        f"dataloader.{r}.dataset.names=voc_2007_{n}"
        for r, n in (("train", "train"), ("test", "test"))
    ]
    cfg = load_config("moco_1x", [*names, "train.classes=[cat]", "model.roi_heads.num_classes=20"])
    assert "of data in COCO's format alone" in refusal(prepare, cfg)


def test_a_test_image_that_is_cut_short_in_place_is_noticed_at_the_next_start(root):
    load(root)
    image = next((root / "val").iterdir())
    image.write_bytes(image.read_bytes()[:400])
    assert f"image {image} cannot be used" in refusal(load, root)


def test_a_file_beside_a_config_that_is_no_record_changes_nothing(root, tmp_path):
    """Nor is it overwritten."""
    other = tmp_path / RECORD
    other.write_bytes((root / "train.json").read_bytes())
    before = other.read_bytes()
    assert read_record(tmp_path) == {}
    with pytest.raises(InputError, match="is not the record of a run: remove it"):
        write_record(load(root), tmp_path)
    assert other.read_bytes() == before


def test_what_is_only_evaluated_leaves_the_record_of_the_training(root, digits, tmp_path):
    cfg = load(root)
    run = tmp_path / "run"
    run.mkdir()
    write_record(cfg, run)
    trained = read_record(run)
    other = own_data(digits, tmp_path / "other")
    rewrite(other / "val.json", lambda content: content["annotations"].pop())
    write_record(load(other), run, eval_only=True)
    record = read_record(run)
    assert {role: record[role] for role in ("train", "test")} == {
        role: trained[role] for role in ("train", "test")
    }
    assert [one["name"] for one in record["evaluated"]] == ["other_val"]
    assert changed_since(run, load(root)) == []
    assert len(changed_since(run, load(other))) == 1


def test_the_recipe_of_a_run_needs_no_training_data_to_be_evaluated(root, tmp_path):
    cfg = load(root, "train.init_checkpoint=")
    run = tmp_path / "run"
    run.mkdir()
    write_record(cfg, run)
    LazyConfig.save(cfg, str(run / "config.yaml"))
    before = fingerprint(cfg)
    for name in ("shapes_train", "shapes_val"):
        forget(name)
    shutil.rmtree(root / "train")
    (root / "train.json").unlink()
    again = load_config(str(run / "config.yaml"), eval_only=True)
    assert fingerprint(again) == before
    said = prepare(again, ("test",), trained=trained_categories(again))
    assert all("have no object" in sentence for sentence in said)


def test_other_ids_of_the_same_names_are_read_as_they_are(root, tmp_path):
    cfg = load(root)
    run = tmp_path / "run"
    run.mkdir()
    write_record(cfg, run)
    LazyConfig.save(cfg, str(run / "config.yaml"))
    before = objects("shapes_val")

    def number_from_11(content):
        for one in (*content["categories"], *content["annotations"]):
            key = "category_id" if "image_id" in one else "id"
            one[key] += 10

    rewrite(root / "val.json", number_from_11)
    for name in ("shapes_train", "shapes_val"):
        forget(name)
    again = load_config(str(run / "config.yaml"), eval_only=True)
    prepare(again, ("test",), trained=trained_categories(again))
    assert objects("shapes_val") == before
    assert min(MetadataCatalog.get("shapes_val").thing_dataset_id_to_contiguous_id) > 10


def test_a_folder_with_a_test_set_alone_can_be_evaluated_on(root):
    (root / "train.json").unlink()
    shutil.rmtree(root / "train")
    cfg = load_config("moco_1x", data_overrides(str(root)), eval_only=True)
    assert cfg.dataloader.test.dataset.names == "shapes_val"
    assert "there is no split to train on (val)" in refusal(load, root)


def test_machines_are_told_apart_by_what_is_in_their_annotations(root, digits, tmp_path):
    """The names are the same; `settle` compares the hashes of all ranks."""
    one = content_hashes(load(root))
    other = own_data(digits, tmp_path / "machine" / "shapes")
    for name in ("shapes_train", "shapes_val"):
        forget(name)
    assert content_hashes(load(other)) == one
    rewrite(other / "train.json", lambda content: content["annotations"].pop())
    changed = content_hashes(load(other))
    assert (
        changed["shapes_val"] == one["shapes_val"]
        and changed["shapes_train"] != one["shapes_train"]
    )


def test_data_yaml_must_name_the_classes_that_the_file_has(root):
    (root / "data.yaml").write_text("train: train.json\nval: val.json\nnames: [a, b]\n")
    message = refusal(load, root / "data.yaml")
    assert "in its data.yaml" in message and "let both have the same names" in message
    names = ", ".join(f"'{digit}'" for digit in reversed(range(10)))
    (root / "data.yaml").write_text(f"train: train.json\nval: val.json\nnames: [{names}]\n")
    assert load(root / "data.yaml").model.roi_heads.num_classes == 10


KEYPOINTS = str(Path(__file__).parents[2] / "projects/keypoints/configs/moco_keypoints_2x.py")


def test_key_points_are_counted_and_learnt_by_the_recipe_that_has_them(root):
    def point(content, number=17):
        for one in content["annotations"][1:]:
            one["keypoints"] = [20, 20, 2] * number

    message = refusal(load, root, config=KEYPOINTS)
    assert (
        "has no key points an object, and model.roi_heads.keypoint_head.num_keypoints=17" in message
    )
    both(root, point)
    load(root)
    count = len(json.loads((root / "train.json").read_text())["annotations"]) - 1
    said = MetadataCatalog.get("shapes_train").said
    words = f"{count} objects have key points, which this recipe does not learn"
    assert any(one.startswith(words) for one in said)
    assert load(root, config=KEYPOINTS).model.roi_heads.num_classes == 10
    both(root, partial(point, number=5))
    assert "has 5 key points an object" in refusal(load, root, config=KEYPOINTS)
    load(root, "model.roi_heads.keypoint_head.num_keypoints=5", config=KEYPOINTS)
