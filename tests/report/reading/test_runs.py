"""Run folders read: whole ones, and ones of which something is missing, cut or damaged."""

import json
import math
import shutil

import pytest
from detectron2.utils.events import EventStorage, JSONWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import (
    SHA256,
    change_json,
    detections,
    truth_of,
    write_evaluation,
    write_run,
    write_scalars,
)

from ssl_backbones.errors import InputError
from ssl_backbones.report.reading.runs import read_run, read_scalars, short_names

FILES = (
    "run.json",
    "config.yaml",
    "metrics.json",
    "inference/metrics.json",
    "inference/coco_instances_results.json",
)


@pytest.fixture(scope="module")
def truth(digits):
    return truth_of(digits)


@pytest.fixture(scope="module")
def whole(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    metrics = write_run(folder, truth, detections(truth, found=0.7))
    return folder, metrics


@pytest.fixture
def run(whole, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(whole[0], tmp_path / "run")


def test_a_whole_run(whole, truth):
    folder, metrics = whole
    run = read_run(folder)
    assert run.problems == []
    assert (run.name, run.folder, run.dataset) == ("whole", str(folder), "digits_test")
    assert (run.evaluation, run.kind_of_evaluation) == ("inference", "")
    assert run.iterations == (60, 60)
    assert run.metrics["bbox/AP50"] == metrics["bbox"]["AP50"]
    assert run.metrics["segm/AP"] == metrics["segm"]["AP"]
    assert run.metrics["bbox/APl"] is None  # no digit is as large
    assert (run.facts["images"], run.facts["images_in_dataset"]) == (6, 6)
    assert run.record["weights"]["source_sha256"] == SHA256
    assert run.curves["lr"] == [(19, 0.02), (39, 0.02), (59, 0.02)]
    assert run.config == "train:\n  max_iter: 60\n"
    assert run.detections == detections(truth, found=0.7)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*/missing: give the folder of a run"):
        read_run(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no folder"):
        read_run(tmp_path / "file")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_one_sentence_that_names_it(run, name):
    (run / name).unlink()
    (problem,) = read_run(run).problems
    assert name in problem and problem.endswith(".")


def test_an_empty_folder(tmp_path):
    run = read_run(tmp_path)
    assert len(run.problems) == len(FILES)
    assert (run.metrics, run.record, run.curves, run.detections) == ({}, {}, {}, None)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("json")])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff\x00", b"[" * 100_000])
def test_damage_is_told(run, name, content):
    (run / name).write_bytes(content)
    (problem,) = read_run(run).problems
    assert name in problem


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True), byte=st.binary(max_size=3)
)
def test_a_file_cut_anywhere_ends_nothing(whole, tmp_path, name, share, byte):
    folder = tmp_path / "cut"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole[0], folder)
    content = (folder / name).read_bytes()
    cut = content[: int(share * len(content))] + byte
    (folder / name).write_bytes(cut)
    run = read_run(folder)
    # JSON of which more than the last newline is cut is none. A log cut between lines is a shorter one.
    assert run.problems or cut.strip() == content.strip() or name in ("metrics.json", "config.yaml")


def test_a_record_with_parts_of_another_kind(run):
    change_json(run / "run.json", weights=["x"], starts=["x"], command_line="train")
    found = read_run(run)
    assert found.problems == [
        "run.json is damaged: it has no usable command_line, weights, starts."
    ]
    assert (found.record["weights"], found.record["starts"]) == ({}, [])
    assert found.record["recipe"]["train.max_iter"] == 60


def test_a_resumed_run_with_another_config_says_so(run):
    start = {"iteration": 20, "changed": [["optimizer.lr", 0.02, 0.01]]}
    change_json(run / "run.json", starts=[{"iteration": 0, "changed": []}, start])
    assert read_run(run).problems == [
        "It was resumed at iteration 20 with other values of optimizer.lr."
    ]


def test_an_interrupted_run_says_how_far_it_came(run):
    write_scalars(run, (19, 39))
    assert read_run(run).problems == [
        "It did 40 of 60 iterations: it was interrupted, ended early, or goes on."
    ]


@pytest.mark.parametrize(
    "damage",
    [
        {"score": None},
        {"score": math.nan},
        {"score": 10**400},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, math.inf]},
        {"image_id": [1]},
        {"category_id": "one"},
        {"segmentation": [1, 2]},
    ],
)
def test_results_of_which_one_is_damaged_are_not_used(run, truth, damage):
    results = detections(truth)
    results[3] |= damage
    (run / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
    found = read_run(run)
    assert found.detections is None
    assert found.problems == [
        "There are no detections: inference/coco_instances_results.json does not hold COCO results."
    ]


def test_further_evaluations_have_their_name_before_their_metrics(run, truth):
    metrics = {
        name: write_evaluation(run / f"inference_{name}", truth, detections(truth, found=found))
        for name, found in (("ema", 0.9), ("start", 0.1), ("ema_tta", 0.8))
        if (run / f"inference_{name}").mkdir() is None
    }
    found = read_run(run)
    assert found.problems == []
    assert found.metrics["ema/bbox/AP"] == metrics["ema"]["bbox"]["AP"]
    assert found.metrics["start/segm/AP50"] == metrics["start"]["segm"]["AP50"]
    assert found.metrics["ema/tta/bbox/AP"] == metrics["ema_tta"]["bbox"]["AP"]
    assert next(iter(found.metrics)) == "bbox/AP"


def test_without_a_final_evaluation_another_one_takes_its_place(run, truth):
    (run / "inference").rename(run / "inference_subset")
    found = read_run(run)
    assert found.problems == [
        "The numbers are of inference_subset/, for want of inference/metrics.json."
    ]
    assert found.metrics["bbox/AP"] > 0 and found.detections == detections(truth, found=0.7)
    assert found.evaluation == "inference_subset"
    assert found.kind_of_evaluation == "of part of the images"


def test_the_evaluation_before_training_is_no_result(run):
    (run / "inference").rename(run / "inference_start")
    found = read_run(run)
    assert "bbox/AP" not in found.metrics and found.metrics["start/bbox/AP"] > 0
    assert len(found.problems) == 2 and found.detections is None


def test_without_an_evaluation_the_config_says_what_is_tested(run):
    (run / "inference" / "metrics.json").unlink()
    assert read_run(run).dataset == "coco_2017_val"  # of the recipe that was recorded


def test_pictures_of_what_it_was_trained_on(run):
    (run / "browse_data").mkdir()
    for name in ("training_batch_1.jpg", "training_batch_0.jpg", "browse_data/overview.png"):
        (run / name).write_bytes(b"")
    assert read_run(run).training_pictures == [
        "training_batch_0.jpg",
        "training_batch_1.jpg",
        "browse_data/overview.png",
    ]


def lines(*entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


@pytest.mark.parametrize(
    ("iterations", "kept"),
    [
        ([0, 10, 20], [0, 10, 20]),
        ([0, 10, 20, 11, 21], [0, 10, 11, 21]),  # resumed from the checkpoint of iteration 10
        ([0, 10, 20, 0], [0]),  # begun anew in the same folder
        ([0, 10, 20, 10], [0, 10]),
    ],
)
def test_a_later_run_takes_the_place_of_what_it_repeats(tmp_path, iterations, kept):
    entries = [{"iteration": i, "loss": number} for number, i in enumerate(iterations)]
    (tmp_path / "metrics.json").write_text(lines(*entries))
    curves, problems = read_scalars(tmp_path / "metrics.json")
    # Of an iteration that stands there twice, the later value counts.
    last = {i: number for number, i in enumerate(iterations)}
    assert curves == {"loss": [(i, last[i]) for i in kept]}
    assert problems == []


def test_lines_that_detectron2_wrote_in_another_order_are_no_restart(tmp_path):
    """Its JSONWriter writes all iterations of a period at once, each scalar with its own."""
    path = tmp_path / "metrics.json"
    period = [{"iteration": 39, "loss": 3, "recipe": "ab"}, {"iteration": 24, "bbox/AP": 7}]
    path.write_text(
        lines({"iteration": 19, "loss": 4}, *period, {"iteration": 59, "loss": 2, "recipe": "ab"})
    )
    curves, problems = read_scalars(path)
    assert curves == {"loss": [(19, 4), (39, 3), (59, 2)], "bbox/AP": [(24, 7)]}
    assert problems == []
    # A scalar that was there already, at the iteration or later, begins a new run.
    with path.open("a") as file:
        file.write(lines({"iteration": 30, "loss": 9}, {"iteration": 24, "bbox/AP": 8}))
    assert read_scalars(path)[0] == {"loss": [(19, 4)], "bbox/AP": [(24, 8)]}


def test_what_detectron2_s_own_writer_leaves_is_read_whole(tmp_path):
    path = tmp_path / "metrics.json"
    writer = JSONWriter(str(path), window_size=1)
    with EventStorage(0) as storage:
        for iteration in range(40):
            storage.put_scalar("loss", 40 - iteration)
            if iteration in (12, 30):
                storage.put_scalar("bbox/AP", iteration)
            if iteration % 20 == 19:
                writer.write()
            storage.step()
    writer.close()
    iterations = [json.loads(line)["iteration"] for line in path.read_text().splitlines()]
    assert iterations != sorted(iterations)
    curves, _ = read_scalars(path)
    assert curves == {"loss": [(19, 21), (39, 1)], "bbox/AP": [(12, 12), (30, 30)]}


def test_what_is_no_finite_number_is_left_out(tmp_path):
    path = tmp_path / "metrics.json"
    entries = [
        {"iteration": 0, "total_loss": 1.5, "recipe": "ab", "flag": True, "bbox/APl": math.nan},
        {"iteration": 1, "total_loss": math.nan},
        {"iteration": 2, "total_loss": math.inf, "lr": 10**400},
    ]
    path.write_text(lines(*entries))
    curves, problems = read_scalars(path)
    assert curves == {"total_loss": [(0, 1.5)]}
    assert problems == ["total_loss is not finite at iteration 1."]


def test_a_last_line_that_was_cut_costs_no_other(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(lines({"iteration": 0, "lr": 1}, {"iteration": 1, "lr": 2})[:-4])
    curves, problems = read_scalars(path)
    assert curves == {"lr": [(0, 1)]}
    assert problems == ["1 of 2 lines of metrics.json are damaged, and left out."]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/a/moco"], ["moco"]),
        (["/a/moco", "/a/swav/"], ["moco", "swav"]),
        (["/a/seed0/run", "/a/seed1/run", "/b/x"], ["seed0/run", "seed1/run", "x"]),
        (["/run", "/a/run"], ["/run", "a/run"]),
        (["/a/run", "/a/run", "/a/b/../run"], ["run", "run (2)", "run (3)"]),
    ],
)
def test_names_are_the_shortest_that_tell_runs_apart(folders, names):
    assert short_names(folders) == names
