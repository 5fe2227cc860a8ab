"""Reports of real run folders, their numbers against pycocotools."""

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import (
    average_precisions,
    change_json,
    detections,
    truth_of,
    write_evaluation,
    write_run,
)

from ssl_backbones.data.digits.digits_dataset import write_digits
from ssl_backbones.errors import InputError
from ssl_backbones.report.analysis.findings import Interval
from ssl_backbones.report.comparing.building import NOT_RECORDED, build
from ssl_backbones.report.page import exports

RESAMPLES = 100


def report(*folders, **options):
    return build(folders, resamples=RESAMPLES, **options)


@pytest.fixture(scope="module")
def truth(digits):
    return truth_of(digits)


@pytest.fixture(scope="module")
def folders(truth, digits, tmp_path_factory):
    """Two detectors, of which one finds every object and the other some, and a third one of other images."""
    folder = tmp_path_factory.mktemp("runs")
    train = truth_of(digits, "train")
    write_run(folder / "some", truth, detections(truth, found=0.4, seed=1))
    write_run(folder / "all", truth, detections(truth), "optimizer.lr=0.03", "train.seed=4")
    write_run(folder / "other", train, detections(train, found=0.5), dataset="digits_train")
    return folder


class Many:
    """32 test images, which are enough to say something: 6 are not."""

    def __init__(self, folder):
        write_digits(folder / "digits", num_train=1, num_test=32, size=64, seed=0)
        self.truth = truth_of(folder / "digits")
        self.options = {
            "annotations": folder / "digits" / "annotations" / "test.json",
            "image_root": folder / "digits" / "test",
        }
        self.some, self.all = folder / "some", folder / "all"
        write_run(self.some, self.truth, detections(self.truth, found=0.4, seed=1))
        write_run(self.all, self.truth, detections(self.truth))

    def report(self, *folders, **options):
        return report(*folders, **self.options, **options)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return Many(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def three(folders):
    return report(folders / "some", folders / "all", folders / "other", command_line=["report.py"])


@pytest.fixture
def run(folders, tmp_path):
    """A copy of the run that finds some, for a test to spoil."""
    return shutil.copytree(folders / "some", tmp_path / "spoilt")


def test_values_are_pycocotools(three, truth):
    some = three.runs[0]
    for task in ("bbox", "segm"):
        expected = average_precisions(truth, detections(truth, found=0.4, seed=1), task)
        for metric in ("AP", "AP50", "AP75"):
            verdict = some.verdicts[f"{task}/{metric}"]
            assert verdict.value == pytest.approx(expected[metric], abs=1e-9)
            assert verdict.interval.value == pytest.approx(expected[metric], abs=1e-9)
            assert verdict.interval.low < expected[metric] < verdict.interval.high
        assert some.analyses[task].by_size["AP"] == pytest.approx(expected["AP"], abs=1e-9)
    assert [run.problems for run in three.runs] == [[], [], []]


def test_a_run_is_compared_with_the_first(many):
    some, every = (run.verdicts["bbox/AP"] for run in many.report(many.some, many.all).runs)
    assert (some.word, some.difference, some.share_higher) == ("the reference", None, None)
    # Whichever images are drawn, the detector that finds everything has an AP of 100.
    assert (every.value, every.word, every.share_higher) == (pytest.approx(100), "higher", 1)
    assert every.difference.value == pytest.approx(100 - some.value)
    assert 0 < every.difference.low < every.difference.value < every.difference.high < 100


def test_the_other_way_round(many):
    verdict = many.report(many.all, many.some).runs[1].verdicts["segm/AP50"]
    assert (verdict.word, verdict.share_higher) == ("lower", 0)
    assert verdict.difference.high < 0


def test_of_few_images_or_few_resamples_nothing_is_said_but_the_intervals(three, many):
    few = three.runs[1].verdicts["bbox/AP"]
    assert few.word == "too few images to say" and few.difference.low > 0
    runs = build([many.some, many.all], resamples=99, **many.options).runs
    assert runs[0].verdicts["bbox/AP"].word == "the reference"
    few = runs[1].verdicts["bbox/AP"]
    assert few.word == "too few resamples to say" and few.difference.low > 0


def test_a_run_differs_from_itself_by_exactly_0(many, tmp_path):
    copied = shutil.copytree(many.some, tmp_path / "copied")
    found = many.report(many.some, copied, many.some)
    assert [run.name for run in found.runs] == ["some", "copied", "some (2)"]
    for run in found.runs[1:]:
        assert len(run.verdicts) == 6
        for verdict in run.verdicts.values():
            assert verdict.difference == Interval(0, 0, 0)
            assert (verdict.word, verdict.share_higher) == ("no difference shown", 0)
    assert found.differences == [] and found.environment_differences == []


AUGMENTED = "shorter side 64, 96, longer at most 4000, flipped too"


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_with_test_time_augmentation_is_not_called_higher(many, tmp_path, order):
    augmented = shutil.copytree(many.all, tmp_path / "augmented")
    change_json(augmented / "inference" / "metrics.json", test_time_augmentation=AUGMENTED)
    found = many.report(*[many.some, augmented][::order])
    verdict = found.runs[1].verdicts["bbox/AP"]
    assert (verdict.word, verdict.difference) == ("another kind of evaluation", None)
    (problem,) = found.problems
    words = [f"augmented was evaluated with test-time augmentation ({AUGMENTED})", "some plainly"]
    if order < 0:
        words = ["some was evaluated plainly", words[0].replace("was evaluated ", "")]
    assert problem == f"{words[0]}, and {words[1]}: they are not compared."
    # Beside one of its own kind it is compared.
    found = many.report(augmented, augmented)
    assert found.problems == []
    assert found.runs[1].verdicts["bbox/AP"].word == "no difference shown"


def test_an_evaluation_of_averaged_weights_is_not_called_higher(many, tmp_path):
    averaged = shutil.copytree(many.all, tmp_path / "averaged")
    (averaged / "inference").rename(averaged / "inference_ema")
    found = many.report(many.some, averaged)
    assert found.runs[1].verdicts["bbox/AP"].word == "another kind of evaluation"
    assert found.problems == [
        "averaged was evaluated of averaged weights, and some plainly: they are not compared."
    ]
    assert "not the same evaluation: of averaged weights" in (
        found.runs[1].verdicts["bbox/AP"].published_note
    )


def test_runs_of_other_images_are_shown_and_not_compared(three):
    other = three.runs[2]
    verdict = other.verdicts["bbox/AP"]
    assert verdict.word == "other test images"
    assert (verdict.difference, verdict.share_higher) == (None, None)
    assert verdict.interval.low < verdict.value < verdict.interval.high
    assert three.problems == [
        "other was tested on 12 images of digits_train, and some on 6 images of digits_test: they are not "
        "compared."
    ]
    assert set(three.test_images) == {"digits_test", "digits_train"}


def test_the_pictures_that_were_tested(three, truth, digits):
    source = three.test_images["digits_test"]
    assert set(source.files) == set(truth.imgs)
    assert source.files[1] == str(digits / "test" / truth.imgs[1]["file_name"])
    assert source.class_names == {id_: cat["name"] for id_, cat in truth.cats.items()}
    boxes = [a["bbox"] for annotations in source.annotations.values() for a in annotations]
    assert len(boxes) == len(truth.anns)


def test_differences_of_the_recipes(three, run):
    assert dict(three.differences) == {"optimizer.lr": [0.02, 0.03, 0.02], "train.seed": [3, 4, 3]}
    (run / "run.json").unlink()
    found = report(three.runs[0].folder, run, three.runs[1].folder)
    assert dict(found.differences)["train.seed"] == [3, NOT_RECORDED, 4]


def test_differences_of_the_environment(folders, run):
    path = run / "run.json"
    environment = json.loads(path.read_text())["environment"]
    environment["versions"]["torch"] = "1.0"
    change_json(path, environment=environment)
    found = report(folders / "some", run)
    ((field, values),) = found.environment_differences
    assert field == "versions.torch" and values[1] == "1.0" != values[0]


def test_what_is_published_and_why_it_is_not_of_this(three):
    first = three.runs[0]
    assert first.published_recipe == "moco_1x"
    verdict = first.verdicts["bbox/AP"]
    assert verdict.published == 38.0
    assert "mask-rcnn_r50-mocov2-pre_fpn_1x_coco" in verdict.published_source
    assert verdict.published_note.startswith("not the same data: tested on digits_test")
    assert first.verdicts["segm/AP"].published == 34.3
    assert first.verdicts["bbox/AP50"].published is None
    assert {d.key: (d.recipe, d.run) for d in first.deviations} == {
        "train.max_iter": (90000, 60),
        "test images": (5000, 6),
    }
    assert "did 60 of 60" not in verdict.published_note
    assert len(first.published_fields) > 10
    (differing,) = (d for d in first.recipe_differences if d.name == "iterations")
    assert (differing.published[:9], differing.here) == ("12 epochs", "90,000")


def test_a_subset_is_analysed_on_its_own_images(run, truth, folders):
    results = detections(truth, found=0.6, seed=2)
    ids = [1, 3, 5]  # three of six, evenly spread
    subset = [result for result in results if result["image_id"] in ids]
    expected = write_evaluation(run / "inference", truth, subset, image_ids=ids)
    found = report(folders / "some", run)
    verdict = found.runs[1].verdicts["bbox/AP"]
    assert found.runs[1].problems == []
    assert verdict.interval.value == pytest.approx(expected["bbox"]["AP"], abs=1e-9)
    assert len(found.runs[1].analyses["bbox"].images) == 3
    assert verdict.word == "other test images"
    assert found.problems[0].startswith(
        "spoilt was tested on 3 images of digits_test, and some on 6"
    )
    # Of another test set's size nobody knows which images they were.
    change_json(run / "inference" / "metrics.json", images_in_dataset=7)
    (problem,) = report(run).runs[0].problems
    assert "3 of 7 images were evaluated" in problem


def test_a_dataset_that_is_not_known_here(run, digits):
    change_json(run / "inference" / "metrics.json", dataset="mine_<b>")
    found = report(run)
    (problem,) = found.runs[0].problems
    assert "mine_<b> is not registered here; give its annotations by --annotations" in problem
    verdict = found.runs[0].verdicts["bbox/AP"]
    assert verdict.value > 0 and verdict.interval is None
    given = report(
        run, annotations=digits / "annotations" / "test.json", image_root=digits / "test"
    )
    assert given.runs[0].problems == []
    assert given.runs[0].verdicts["bbox/AP"].interval is not None
    assert given.test_images["mine_<b>"].files[1].startswith(str(digits / "test"))


def test_annotations_that_detectron2_left_in_the_run_folder(run, digits):
    change_json(run / "inference" / "metrics.json", dataset="mine")
    shutil.copy(digits / "annotations" / "test.json", run / "inference" / "mine_coco_format.json")
    found = report(run)
    assert found.runs[0].problems == []
    assert found.runs[0].verdicts["bbox/AP"].interval is not None


def with_its_own_annotations(folder, digits, run, **changes):
    """A copy of a run, with annotations of "mine" as Detectron2 leaves them there."""
    run = shutil.copytree(run, folder)
    change_json(run / "inference" / "metrics.json", dataset="mine")
    content = json.loads((digits / "annotations" / "test.json").read_text()) | changes
    (run / "inference" / "mine_coco_format.json").write_text(json.dumps(content))
    return run


def test_the_same_annotations_in_each_run_folder(folders, digits, tmp_path):
    # Detectron2 writes the time into each.
    runs = [
        with_its_own_annotations(
            tmp_path / name, digits, folders / name, info={"date_created": name}
        )
        for name in ("some", "all")
    ]
    found = report(*runs)
    assert found.problems == []
    assert found.runs[1].verdicts["segm/AP"].difference.low > 0


def test_other_annotations_of_the_same_name(folders, digits, tmp_path):
    objects = json.loads((digits / "annotations" / "test.json").read_text())["annotations"]
    some = with_its_own_annotations(tmp_path / "some", digits, folders / "some")
    every = with_its_own_annotations(
        tmp_path / "all", digits, folders / "all", annotations=objects[1:]
    )
    found = report(some, every)
    (problem,) = found.problems
    paths = [str(run / "inference" / "mine_coco_format.json") for run in (every, some)]
    assert problem == (
        f"all was tested on 6 images of mine by {paths[0]}, and some on 6 images of mine by {paths[1]}: they "
        "are not compared."
    )
    assert {run.verdicts["bbox/AP"].difference for run in found.runs} == {None}


def test_detections_of_images_that_the_annotations_have_not(run):
    path = run / "inference" / "coco_instances_results.json"
    results = json.loads(path.read_text())
    results[0]["image_id"] = 99
    path.write_text(json.dumps(results))
    found = report(run)
    (problem,) = found.runs[0].problems
    assert "other images" in problem and "99" in problem
    assert found.runs[0].verdicts["bbox/AP"].interval is None


def test_metrics_of_another_evaluation_than_the_detections(run, truth, digits):
    # The training images have the same numbers and other objects.
    problems = report(run, annotations=digits / "annotations" / "train.json").runs[0].problems
    assert len(problems) == 2  # of boxes and of masks
    path = run / "inference" / "coco_instances_results.json"
    path.write_text(json.dumps(detections(truth)))
    problems = report(run).runs[0].problems
    assert len(problems) == 2
    assert "and its detections give 100.0" in problems[0]


def test_numbers_that_are_not_of_the_detections_have_no_interval(many, tmp_path):
    run = shutil.copytree(many.some, tmp_path / "spoilt")
    path = run / "inference" / "metrics.json"
    box = json.loads(path.read_text())["bbox"]
    # Of one metric alone, and barely more than rounding can be; masks are as they were.
    change_json(path, bbox=box | {"AP75": box["AP75"] + 0.06})
    first, second = many.report(many.all, run).runs
    assert len(second.problems) == 1 and "box AP75" in second.problems[0]
    for metric in ("AP", "AP50", "AP75"):
        verdict = second.verdicts[f"bbox/{metric}"]
        assert verdict.word == "its numbers are not of its detections"
        assert (verdict.interval, verdict.difference, verdict.share_higher) == (None, None, None)
    assert second.verdicts["segm/AP"].word == "lower"
    first, second = many.report(run, many.all).runs
    assert first.verdicts["bbox/AP"].word == "its numbers are not of its detections"
    verdict = second.verdicts["bbox/AP"]
    assert verdict.word == "the numbers of spoilt are not of its detections"
    assert verdict.interval is not None and verdict.difference is None
    change_json(path, bbox=box | {"AP75": box["AP75"] + 0.04})
    assert many.report(run).runs[0].problems == []


def test_a_detector_of_boxes_beside_one_of_boxes_and_masks(folders, truth, tmp_path):
    write_run(tmp_path / "boxes", truth, detections(truth, masks=False, found=0.9))
    found = report(tmp_path / "boxes", folders / "all")
    boxes, every = (run.verdicts for run in found.runs)
    assert set(boxes) == {"bbox/AP", "bbox/AP50", "bbox/AP75"}
    assert every["bbox/AP"].difference is not None
    assert every["segm/AP"].word == "boxes has no usable detections"
    assert every["segm/AP"].interval is not None
    assert [run.problems for run in found.runs] == [[], []]


def test_a_detector_that_found_nothing(run):
    (run / "inference" / "coco_instances_results.json").write_text("[]")
    path = run / "inference" / "metrics.json"
    nothing = {name: None for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    change_json(path, bbox=nothing | {"per_class": {}}, segm=nothing | {"per_class": {}})
    found = report(run).runs[0]
    assert found.problems == []
    assert found.verdicts["bbox/AP"].interval == Interval(0, 0, 0)
    assert found.verdicts["segm/AP"].value == 0


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "metrics.json",
        "config.yaml",
        "inference/metrics.json",
        "inference/coco_instances_results.json",
    ],
)
def test_a_missing_file_of_either_run_is_no_exception(folders, run, name):
    (run / name).unlink()
    for order in ((folders / "all", run), (run, folders / "all")):
        found = report(*order)
        spoilt = found.runs[order.index(run)]
        assert spoilt.problems and found.runs[order.index(folders / "all")].problems == []
    words = {verdict.word for verdict in found.runs[1].verdicts.values()}
    if name == "inference/coco_instances_results.json":
        assert words == {"spoilt has no usable detections"}
    elif name != "inference/metrics.json":
        assert words == {"too few images to say"}


def test_annotations_without_objects(run, folders, digits, tmp_path):
    content = json.loads((digits / "annotations" / "test.json").read_text())
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(content | {"annotations": []}))
    for found in report(folders / "all", run, annotations=path).runs:
        assert found.verdicts["bbox/AP"].interval is None
        assert found.verdicts["segm/AP50"].word == "no objects to find"


def test_keypoints_and_other_tasks_are_told(run):
    keypoints = {"AP": 61.5, "AP50": 84.25, "per_class": {}}
    classes = {"IoU": 40.0, "per_class": {"one": 3.0}}
    change_json(run / "inference" / "metrics.json", keypoints=keypoints, sem_seg=classes)
    found = report(run)
    assert found.runs[0].other_metrics == {
        "keypoints/AP": 61.5,
        "keypoints/AP50": 84.25,
        "sem_seg/IoU": 40.0,
    }
    assert "61.5" in exports.format_markdown(found)


def test_halves_of_surrogate_pairs_end_nothing(folders, digits, tmp_path):
    odd = "\udc80 \ud83d"
    run = shutil.copytree(folders / "some", tmp_path / "odd")
    change_json(run / "run.json", command_line=["train.py", odd], git={odd: odd})
    change_json(run / "inference" / "metrics.json", dataset=odd, **{odd: odd})
    with open(run / "metrics.json", "a") as file:
        file.write(json.dumps({"iteration": 60, odd: 1.0}) + "\n")
    content = json.loads((digits / "annotations" / "test.json").read_text())
    for image in content["images"]:
        # As Python reads the name of a file that is not UTF-8; other halves are refused.
        image["file_name"] = "\udc80" + image["file_name"]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    found = report(run, folders / "all", annotations=path, command_line=["report.py", odd])
    first, source = found.runs[0], found.test_images[found.runs[0].dataset]
    read = [first.record, first.facts, first.curves, first.dataset, first.problems]
    read += [found.command_line, list(source.files.values()), list(source.class_names.values())]
    texts = [json.dumps(content, ensure_ascii=False) for content in read]
    texts += [exports.format_markdown(found), exports.format_csv(found)]
    for text in (*texts, exports.write_results(first).read_text()):
        text.encode()
    assert first.record["command_line"] == ["train.py", "\\udc80 \\ud83d"]
    assert first.verdicts["bbox/AP"].interval is not None


def test_a_folder_whose_name_is_not_utf8(folders, tmp_path):
    run = shutil.copytree(folders / "some", tmp_path / os.fsdecode(b"r\xff"))
    (run / "run.json").unlink()
    found = report(run)
    assert found.runs[0].name == "r\\udcff"
    for text in (
        exports.format_markdown(found),
        exports.format_csv(found),
        *found.runs[0].problems,
    ):
        text.encode()
    assert exports.write_results(found.runs[0]).parent == run


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = {
    "run.json": [
        *(
            "command_line",
            "seed",
            "fingerprint",
            "recipe",
            "weights",
            "environment",
            "git",
            "starts",
        )
    ],
    "inference/metrics.json": ["dataset", "images", "images_in_dataset", "bbox", "segm"],
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([(name, key) for name in KEYS for key in KEYS[name]]), ANYTHING)
def test_whatever_stands_in_a_file_is_no_exception(folders, tmp_path_factory, place, value):
    run = shutil.copytree(folders / "some", tmp_path_factory.mktemp("odd") / "run")
    name, key = place
    change_json(run / name, **{key: value})
    found = build([run], resamples=1)
    assert exports.format_markdown(found) and exports.format_csv(found)


def test_empty_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = report(tmp_path / "a", tmp_path / "b")
    # Of each of the five files, one sentence.
    assert [(run.verdicts, len(run.problems)) for run in found.runs] == [({}, 5), ({}, 5)]


def test_masks_that_are_missing_or_cannot_be_compared(run, truth, digits, tmp_path):
    path = run / "inference" / "coco_instances_results.json"
    results = json.loads(path.read_text())
    del results[0]["segmentation"]
    path.write_text(json.dumps(results))
    found = report(run).runs[0]
    assert found.problems == ["Not all of its detections have masks: mask AP is not analysed."]
    assert found.verdicts["bbox/AP"].interval is not None
    assert found.verdicts["segm/AP"].interval is None
    content = json.loads((digits / "annotations" / "test.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    path.write_text(json.dumps(detections(truth, found=0.4, seed=1)))
    (problem,) = report(run, annotations=boxes).runs[0].problems
    assert "objects without a mask: mask AP is not analysed" in problem


def test_the_same_seed_gives_the_same_intervals(folders):
    first, again, other = (report(folders / "some", seed=seed) for seed in (7, 7, 8))
    assert first.runs[0].verdicts == again.runs[0].verdicts != other.runs[0].verdicts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 1.5}, "--min-score 1.5"),
        ({"min_score": float("nan")}, "--min-score nan"),
        ({"resamples": 0}, "--resamples 0"),
        ({"seed": -1}, "--seed -1: give 0 or more"),
        ({"annotations": "missing.json"}, "missing.json: cannot be read"),
        ({"image_root": "missing"}, "no folder of images missing"),
    ],
)
def test_wrong_options_are_refused(folders, options, message):
    with pytest.raises(InputError, match=message):
        build([folders / "some"], **options)


def test_no_run_and_no_folder_are_refused(folders):
    with pytest.raises(InputError, match="no run"):
        build([])
    with pytest.raises(InputError, match="missing"):
        build([folders / "some", folders / "missing"])
