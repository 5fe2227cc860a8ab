"""Pictures of run folders whose results are the ground truth of the digits test scenes."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import ssl_backbones.data  # noqa: F401  registers digits_test
from ssl_backbones.errors import InputError
from ssl_backbones.report.pictures import draw_losses, draw_predictions


def write_results(run_folder, digits, score):
    content = json.loads((digits / "annotations" / "test.json").read_text())
    results = []
    for annotation in content["annotations"]:
        polygons = coco_mask.frPyObjects(annotation["segmentation"], 64, 64)
        rle = coco_mask.merge(polygons)
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": annotation["bbox"],
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                "score": score,
            }
        )
    (run_folder / "inference").mkdir(exist_ok=True)
    (run_folder / "inference" / "coco_instances_results.json").write_text(json.dumps(results))


def picture(run_folder, digits, score, num_images=4):
    write_results(run_folder, digits, score)
    path = run_folder / "predictions.png"
    drawn = draw_predictions(run_folder, path, dataset="digits_test", num_images=num_images)
    return drawn, np.asarray(Image.open(path).convert("RGB"))


def test_predictions_stand_to_the_right_of_the_ground_truth(digits, tmp_path):
    drawn, sure = picture(tmp_path, digits, score=0.9)
    _, unsure = picture(tmp_path, digits, score=0.4)
    assert drawn == 4
    # What is too unsure is not drawn, and nothing else changes: the differences lie in the right panels.
    columns = np.flatnonzero((sure != unsure).any((0, 2)))
    panel = (columns / (sure.shape[1] / 8)).astype(int)
    assert set(panel) == {1, 3, 5, 7}


def test_rows_of_four_scenes_and_no_more_than_there_are(digits, tmp_path):
    drawn, two_rows = picture(tmp_path, digits, score=0.9, num_images=50)
    _, one_row = picture(tmp_path, digits, score=0.9, num_images=1)
    assert drawn == 6
    assert two_rows.shape[0] == pytest.approx(2 * one_row.shape[0], abs=2)
    assert two_rows.shape[1] == one_row.shape[1]


def test_a_folder_without_an_evaluation_is_refused(digits, tmp_path):
    with pytest.raises(InputError, match="no results of an evaluation"):
        draw_predictions(tmp_path, tmp_path / "p.png", dataset="digits_test")
    write_results(tmp_path, digits, score=0.9)
    with pytest.raises(InputError, match="'digits_tset' is not registered"):
        draw_predictions(tmp_path, tmp_path / "p.png", dataset="digits_tset")
    assert not (tmp_path / "p.png").exists()


def entries(*points):
    return "".join(
        json.dumps({"iteration": i, "total_loss": loss, "loss_mask": loss / 2, "lr": 0.1}) + "\n"
        for i, loss in points
    )


def curve(folder, text):
    (folder / "metrics.json").write_text(text)
    draw_losses(folder, folder / "losses.png")
    return (folder / "losses.png").read_bytes()


def test_losses_are_drawn(tmp_path):
    falling = curve(tmp_path, entries((0, 4), (10, 3), (20, 2)))
    assert Image.open(tmp_path / "losses.png").format == "PNG"
    assert falling != curve(tmp_path, entries((0, 4), (10, 3), (20, 3)))


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        # resumed from the checkpoint of iteration 10
        ([(0, 4), (10, 3), (20, 9)], [(11, 3), (21, 2)], [(0, 4), (10, 3), (11, 3), (21, 2)]),
        # begun anew in the same folder
        ([(0, 4), (10, 3)], [(0, 5)], [(0, 5)]),
    ],
)
def test_a_later_run_takes_the_place_of_what_it_repeats(tmp_path, first, second, together):
    appended = curve(tmp_path, entries(*first, *second))
    assert appended == curve(tmp_path, entries(*together))


@pytest.mark.parametrize(
    "text", [None, "", "not json\n", '{"lr": 1}\n', '{"iteration": 1, "lr": 1}\n']
)
def test_a_folder_without_losses_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match="losses"):
        draw_losses(tmp_path, tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()
