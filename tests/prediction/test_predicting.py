"""Detections on files, beside what Detectron2's own predictor gives for the same image."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError
from ssl_backbones.prediction.video import VideoFile

TINY = str(Path(__file__).parents[1] / "tiny.py")


@pytest.fixture
def reference(weights):
    """COCO results of a BGR image, by the lines of Detectron2's `DefaultPredictor`."""
    held = torch.load(weights, weights_only=True)
    model = instantiate(load_config(TINY, ["model.backbone.bottom_up.norm=BN"]).model).eval()
    augmentation = T.ResizeShortestEdge([64, 64], 1333)

    def predict(original_image, input_format="RGB", state=held["model"]):
        model.load_state_dict(state)
        with torch.no_grad():
            if input_format == "RGB":
                original_image = original_image[:, :, ::-1]
            height, width = original_image.shape[:2]
            image = augmentation.get_transform(original_image).apply_image(original_image)
            image = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
            inputs = {"image": image, "height": height, "width": width}
            results = instances_to_coco_json(model([inputs])[0]["instances"], 1)
        # The digits' categories are numbered from 1, like COCO's.
        return [{**result, "category_id": result["category_id"] + 1} for result in results]

    predict.averaged = held["ema"]["model"]
    return predict


def without_id(results):
    return [{key: value for key, value in r.items() if key != "image_id"} for r in results]


def of_image(results, number):
    return without_id(r for r in results.detections if r["image_id"] == number)


def test_detections_are_those_of_detectron2s_own_predictor(find, reference, scenes):
    # Not square, and another size than the model takes.
    image = cv2.resize(cv2.imread(str(scenes[0])), (150, 100))
    cv2.imwrite(str(scenes[0]), image)
    results, summary = find(*scenes[:2])
    expected = reference(image)
    assert len(expected) == 5
    assert of_image(results, 1) == without_id(expected)
    assert of_image(results, 2) == without_id(reference(cv2.imread(str(scenes[1]))))
    assert summary.highest_score == max(r["score"] for r in results.detections)
    # The comparison would have seen swapped channels.
    assert without_id(reference(image, "BGR")) != without_id(expected)


def test_the_threshold_keeps_what_reaches_it(find, scenes):
    everything, _ = find(scenes[0])
    scores = sorted(r["score"] for r in everything.detections)
    results, summary = find(scenes[0], threshold=scores[2])
    assert sorted(r["score"] for r in results.detections) == scores[2:]
    nothing, summary = find(scenes[0], threshold=1.0)
    assert nothing.detections == [] and summary.highest_score == scores[-1]


def test_an_image_is_turned_upright(find, scenes, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    wide = Image.open(scenes[0]).convert("RGB").resize((120, 60))
    turned, upright = tmp_path / "turned.png", tmp_path / "upright.png"
    wide.save(turned, exif=exif)
    ImageOps.exif_transpose(Image.open(turned)).save(upright)
    results, _ = find(turned, upright)
    assert of_image(results, 1) == of_image(results, 2) != []
    assert [(i["width"], i["height"]) for i in results.images] == [(60, 120)] * 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_other_modes_are_read(find, scenes, tmp_path, mode):
    path = tmp_path / f"other.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.open(scenes[0]).convert(mode).save(path)
    results, summary = find(path)
    assert len(results.images) == 1 and summary.faults == []


def test_images_beyond_pillows_limit_give_the_same_detections(find, scenes, monkeypatch):
    expected, _ = find(scenes[0])
    # A scene has 64 x 64 pixels, twice what Pillow refuses now.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1024)
    results, summary = find(scenes[0], pictures=True)
    assert results.detections == expected.detections and summary.faults == []


def test_of_many_pages_the_first_is_read_and_this_is_said_once(find, scenes, tmp_path, caplog):
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    pages = [Image.open(scene).convert("RGB") for scene in scenes[:3]]
    for path in paths:
        pages[0].save(path, save_all=True, append_images=pages[1:])
    expected, _ = find(scenes[0])
    results, _ = find(*paths)
    first = [found for found in results.detections if found["image_id"] == 1]
    assert without_id(first) == without_id(expected.detections)
    said = [record.getMessage() for record in caplog.records if "pages" in record.getMessage()]
    assert said == [
        f"image {paths[0]} has 3 pages or frames: the first is read, as in 1 other of many pages"
    ]


def test_what_cannot_be_read_is_passed_over(find, scenes, tmp_path):
    whole = scenes[0].read_bytes()
    spoilt = {
        "text.jpg": b"no image",
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "gone.png": None,
        "film.mp4": b"no film",
    }
    for name, content in spoilt.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    Image.fromarray(np.full((64, 64), 999, dtype=np.uint16)).save(tmp_path / "deep.png")
    names = [*spoilt, "deep.png"]
    results, summary = find(scenes[0], *(tmp_path / name for name in names), scenes[1])
    assert [image["file_name"] for image in results.images] == [str(p) for p in scenes[:2]]
    assert [image["id"] for image in results.images] == [1, 2]
    assert len(summary.faults) == len(names)
    for fault, name in zip(summary.faults, names, strict=True):
        assert str(tmp_path / name) in fault and "cannot be used" in fault
    assert "clip" in summary.faults[-1]


def test_batches_find_the_same(find, scenes):
    alone, _ = find(*scenes)
    together, summary = find(*scenes, batch_size=4)
    assert summary.images == 6
    for one, other in zip(alone.detections, together.detections, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        # Sums in another order.
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_averaged_weights(find, reference, scenes):
    averaged, _ = find(scenes[0], averaged=True)
    expected = reference(cv2.imread(str(scenes[0])), state=reference.averaged)
    assert of_image(averaged, 1) == without_id(expected)
    assert of_image(averaged, 1) != without_id(reference(cv2.imread(str(scenes[0]))))


def test_a_runs_own_yaml_config_gives_the_same(find, scenes, tmp_path):
    saved = tmp_path / "config.yaml"
    LazyConfig.save(load_config(TINY), str(saved))
    assert "_target_" in saved.read_text()
    from_python, _ = find(scenes[0])
    from_yaml, _ = find(scenes[0], config=str(saved))
    assert from_python.detections == from_yaml.detections


def test_pycocotools_reads_both_files(find, scenes, tmp_path):
    results, _ = find(*scenes[:2])
    found = COCO(tmp_path / "out" / "images.json").loadRes(
        str(tmp_path / "out" / "coco_instances_results.json")
    )
    assert len(found.anns) == len(results.detections) == 10
    assert {c["id"]: c["name"] for c in found.dataset["categories"]} == {
        digit + 1: str(digit) for digit in range(10)
    }
    assert found.imgs[2]["file_name"] == str(scenes[1])
    assert found.annToMask(found.anns[1]).shape == (64, 64)


def test_pictures_show_the_images_with_what_was_found(find, scenes, tmp_path):
    results, _ = find(*scenes[:2], pictures=True, threshold=1.0)
    for path, image in zip(scenes, results.images, strict=False):
        drawn = np.asarray(Image.open(tmp_path / "out" / image["picture"]), dtype=float)
        original = np.asarray(Image.open(path).convert("RGB"), dtype=float)
        # Nothing scores 1: enlarged five times to 320 pixels, and as far off as JPEG is.
        assert np.abs(drawn - original.repeat(5, 0).repeat(5, 1)).mean() < 4
    empty = np.asarray(Image.open(tmp_path / "out" / results.images[0]["picture"]), dtype=float)
    results, _ = find(scenes[0], pictures=True)
    drawn = np.asarray(Image.open(tmp_path / "out" / results.images[0]["picture"]), dtype=float)
    assert (np.abs(drawn - empty).max(2) > 30).mean() > 0.01


def test_pictures_of_one_name_do_not_replace_each_other(find, scenes, tmp_path):
    others = [tmp_path / "x" / scenes[0].name, tmp_path / "y" / scenes[0].name.upper()]
    for other in others:
        other.parent.mkdir()
        other.write_bytes(scenes[0].read_bytes())
    results, _ = find(scenes[0], *others, pictures=True)
    names = [image["picture"] for image in results.images]
    assert len({name.lower() for name in names}) == 3
    assert {path.name for path in (tmp_path / "out" / "pictures").iterdir()} == {
        name.removeprefix("pictures/") for name in names
    }


@pytest.fixture
def film(scenes, tmp_path):
    """Six frames."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (64, 62))
    for scene in scenes:
        writer.write(cv2.resize(cv2.imread(str(scene)), (64, 62)))
    writer.release()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        is_one, frame = capture.read()
        if not is_one:
            return capture.get(cv2.CAP_PROP_FPS), frames
        frames.append(frame)


def test_a_video_frame_by_frame(find, reference, film, scenes, tmp_path):
    results, _ = find(scenes[0], film, scenes[1], pictures=True, batch_size=1)
    _, frames = frames_of(film)
    assert [image.get("frame") for image in results.images] == [None, 0, 1, 2, 3, 4, 5, None]
    for number, frame in enumerate(frames):
        assert of_image(results, number + 2) == without_id(reference(frame))
    rate, drawn = frames_of(tmp_path / "out" / results.images[1]["picture"])
    assert rate == 12 and len(drawn) == 6
    # Enlarged six times.
    assert drawn[0].shape == (372, 384, 3)


def test_frames_of_an_odd_size_are_widened_by_a_pixel(tmp_path):
    picture = np.zeros((33, 51, 3), dtype=np.uint8)
    picture[..., 0] = 255  # red
    file = VideoFile(tmp_path / "odd.mp4", 5.0)
    file.add(picture)
    assert not (tmp_path / "odd.mp4").exists()
    file.close()
    rate, (frame,) = frames_of(tmp_path / "odd.mp4")
    assert rate == 5 and frame.shape == (34, 52, 3)
    blue, green, red = frame.reshape(-1, 3).T.astype(int)
    assert blue.max() < 20 and green.max() < 20 and red.min() > 235


def test_a_video_that_is_cut_off_is_used_as_far_as_it_goes(find, film):
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    results, summary = find(film)
    assert 0 < len(results.images) < 6
    assert "of the 6 frames" in summary.faults[0] and str(film) in summary.faults[0]


def test_what_fails_leaves_no_half_video(find, film, tmp_path):
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        find(film, pictures=True, on_image=fail)
    assert list((tmp_path / "out" / "pictures").iterdir()) == []


def test_what_was_found_before_ctrl_c_is_kept(find, film, tmp_path):
    calls = iter(range(3))

    def interrupt():
        if next(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find(film, pictures=True, on_image=interrupt)
    out = tmp_path / "out"
    assert len(json.loads((out / "images.json").read_text())["images"]) == 3
    assert len(json.loads((out / "coco_instances_results.json").read_text())) == 15
    _, drawn = frames_of(out / "pictures" / "film.mp4")
    assert len(drawn) == 3


def test_channel_orders_that_disagree_are_refused(find, scenes):
    with pytest.raises(InputError, match="channel order disagrees"):
        find(scenes[0], overrides=["model.input_format=BGR"])


def test_without_a_gpu_the_cpu_takes_its_place(find, scenes, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu, _ = find(scenes[0])
    instead, _ = find(scenes[0], overrides=["train.device=cuda"])
    assert instead.detections == on_cpu.detections
    assert "no GPU" in caplog.text


@pytest.mark.parametrize(
    ("name", "names", "ids"),
    [
        ("coco_2017_val", ["person", "bicycle"], [1, 2]),
        ("not_registered_anywhere", ["class 0", "class 1"], [0, 1]),
    ],
)
def test_classes_are_those_of_the_test_dataset(name, names, ids):
    from ssl_backbones.prediction.output import classes_of

    overrides = [f"dataloader.test.dataset.names={name}", "model.roi_heads.num_classes=80"]
    classes = classes_of(load_config(TINY, overrides))
    assert (classes.names[:2], classes.ids[:2], len(classes.names)) == (names, ids, 80)
    # COCO's eighty classes are numbered up to ninety.
    assert classes.ids[-1] == (90 if name == "coco_2017_val" else 79)


def test_category_ids_come_from_a_dataset_that_was_not_loaded(tmp_path):
    from detectron2.data.datasets import register_coco_instances

    from ssl_backbones.prediction.output import classes_of

    path = tmp_path / "own.json"
    categories = [{"id": 30, "name": "late"}, {"id": 7, "name": "early"}]
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    register_coco_instances(
        "own_dataset", {"thing_classes": ["early", "late"]}, str(path), str(tmp_path)
    )
    overrides = ["dataloader.test.dataset.names=own_dataset", "model.roi_heads.num_classes=2"]
    assert classes_of(load_config(TINY, overrides)) == (["early", "late"], [7, 30])
