"""What an evaluation plans, keeps, refuses and tells."""

import csv
import json

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.fidelity.protocols import Protocol
from ssl_backbones.fidelity.protocols import protocols as known
from ssl_backbones.studies.evaluation import Evaluation
from ssl_backbones.studies.evaluation_tables import COLUMNS, format_csv, format_markdown, plan
from ssl_backbones.studies.processes import Outcome
from ssl_backbones.studies.protocol_runs import identity_of


@pytest.fixture
def evaluation(protocols, tmp_path):
    def make(**changes):
        given = {"output": tmp_path / "out", "seed": 5, "folds": 5, **changes}
        (tmp_path / "out").mkdir(exist_ok=True)
        return Evaluation("ssl://moco_v2_800ep", protocols, **given)

    return make


def done(seed, differs=(), **metrics):
    metrics = {name.replace("_", "/"): value for name, value in metrics.items()}
    facts = {"fingerprint": f"{seed}" * 64, "weights": "abc moco", "seed": seed}
    return {"status": "done", "metrics": metrics, "differs": list(differs), **facts}


def test_every_run_starts_from_the_weights_in_a_folder_of_its_own(evaluation, tmp_path):
    it = evaluation(flags=["--num-gpus", "8"], overrides=["train.log_period=5"])
    steps = [it.step(run) for protocol in it.protocols for run in it.missing_of(protocol)]
    assert [step.name for step in steps] == ["boxes", "few_fold0", "few_fold1", "few_fold2"]
    words = steps[2].words
    assert words[0].endswith("tools/train_net.py") and words[1] == "--config-file"
    assert words[3:] == (
        *("--resume", "--num-gpus", "8", "train.log_period=5", "dataloader.train.dataset.names=d1"),
        *(
            "train.init_checkpoint=ssl://moco_v2_800ep",
            f"train.output_dir={tmp_path}/out/few_fold1",
        ),
        "train.seed=6",
    )
    assert it.conversion() is None  # a named weight is converted by who fetches it


def test_a_raw_file_is_converted_once_and_a_converted_one_never(protocols, moco_file, converted):
    out = moco_file.parent / "evaluation"
    raw = Evaluation(str(moco_file), protocols, out, 0, 5)
    step = raw.conversion()
    assert step.words[0].endswith("tools/convert_checkpoint.py")
    assert (
        step.words[1:] == (str(moco_file), str(out / "backbone.pkl"))
        and "--no-verify" not in step.words
    )
    assert (
        f"train.init_checkpoint={out / 'backbone.pkl'}" in raw.step(raw.runs(protocols[0])[0]).words
    )
    it = Evaluation(str(converted), protocols, out, 0, 5)
    assert it.conversion() is None and it.weights == str(converted)
    with pytest.raises(InputError, match="no file at"):
        Evaluation("nowhere.pth", protocols, out, 0, 5)


def test_what_protocols_need_is_made_once_and_only_for_runs_that_are_missing(tmp_path):
    wanted = [known()[name] for name in ("voc_c4", "low_shot_1", "low_shot_2")]
    it = Evaluation("ssl://moco_v2_800ep", wanted, tmp_path, 0, 1)
    (step,) = it.preparations()
    assert step.words[0].endswith("projects/low_shot/lists.py")
    it.rows = {"low_shot_1_fold0": done(0)}
    assert len(it.preparations()) == 1
    it.rows["low_shot_2_fold0"] = done(0)
    assert it.preparations() == []


def test_the_plan_says_hours_where_somebody_has_published_them(evaluation):
    lines = "\n".join(plan(evaluation(), 4))
    # 90,000 iterations of 0.2 s on 8 GPUs are 5 hours, on 4 twice as many.
    assert "1 run, 10.0 hours each" in lines and "(somebody, with frozen batch norm)" in lines
    assert "10 hours in all, of training alone, on 4 GPUs" in lines
    assert "3 runs, time unknown" in lines and "time unknown of few:" in lines
    halved = "\n".join(plan(evaluation(overrides=["train.max_iter=45000"]), 8))
    assert "1 run, 2.5 hours each" in halved
    on_cpu = "\n".join(plan(evaluation(), None))
    assert "hours each" not in on_cpu and "hours in all" not in on_cpu
    assert "time unknown of boxes, few:" in on_cpu
    it = evaluation()
    boxes, few = it.protocols
    it.rows = {
        "boxes": {**done(5), **identity_of(it.runs(boxes)[0], [])},
        "few_fold1": {"status": "exit status 1: no disk", **identity_of(it.runs(few)[1], [])},
    }
    lines = "\n".join(plan(it, 8))
    assert "1 run, 1 done" in lines and "3 runs, time unknown" in lines


def test_a_run_that_failed_is_told_and_done_again(evaluation, protocols, tmp_path):
    it = evaluation()
    (run,) = it.runs(protocols[0])
    log = tmp_path / "log.txt"
    log.write_text("words\nerror: no disk\n\n")
    it.begin(run)
    assert evaluation().rows["boxes"]["status"] == "started"
    it.ended(it.step(run), Outcome(2, 1.0, 1.0, log))
    again = evaluation()
    assert again.rows["boxes"]["status"] == "exit status 2: error: no disk"
    assert again.failed() == ["boxes"] and again.missing_of(protocols[0]) == [run]
    assert "| boxes | exit status 2: error: no disk | 5 |  |  |  |" in format_markdown(
        again, "mine"
    )


def test_a_result_that_cannot_be_read_is_that_runs_status(evaluation, protocols, tmp_path):
    it = evaluation()
    (run,) = it.runs(protocols[0])
    metrics = tmp_path / "out" / "boxes" / "inference" / "metrics.json"
    metrics.parent.mkdir(parents=True)
    record = tmp_path / "out" / "boxes" / "run.json"
    # Nothing, another shape, and a record without what is asked of it.
    for text, kept in (("{", "{}"), ("[]", "{}"), ('{"bbox": {"AP": 1.0}}', "{}"), (None, None)):
        if text is not None:
            metrics.write_text(text)
            record.write_text(kept)
        else:
            from ssl_backbones.evaluation.metrics import write_metrics

            write_metrics({"bbox": {"AP": 1.0}}, str(metrics), "d")
            record.write_text('{"recipe": {}, "environment": {}, "starts": []}')
        it.begin(run)
        it.ended(it.step(run), Outcome(0, 1.0, 1.0, metrics))
        assert it.rows["boxes"]["status"].startswith("the result cannot be read: ")
    assert it.failed() == ["boxes"]


def test_a_run_of_another_or_an_edited_config_is_refused(evaluation, protocols, tmp_path):
    it = evaluation()
    (run,) = it.runs(protocols[0])
    config, folder = tmp_path / "config.py", tmp_path / "out" / "boxes"
    it.begin(run)
    folder.mkdir()
    it.check_rows()
    before = config.read_text()
    config.write_text(before + "# a remark changes nothing\n")
    evaluation().check_rows()
    config.write_text(before.replace('"max_iter": 3', '"max_iter": 4'))
    for check in (evaluation().check_rows, lambda: plan(evaluation(), 8)):
        with pytest.raises(
            InputError, match=r"boxes is a run of .*config\.py before that was edited"
        ):
            check()
    config.write_text(before)
    evaluation().check_rows()
    with pytest.raises(InputError, match="before that was edited"):
        evaluation(overrides=["train.max_iter=5"]).check_rows()

    other = tmp_path / "folder" / "boxes.py"
    other.parent.mkdir()
    other.write_text(before)
    of_other = evaluation()
    of_other.protocols = [Protocol("boxes", "a title", str(other))]
    with pytest.raises(InputError, match=r"is a run of .*config\.py, not of .*folder/boxes\.py"):
        of_other.check_rows()
    # Whoever has removed the run folder has it done again.
    folder.rmdir()
    of_other.check_rows()
    assert of_other.rows == {}
    # Weights and seed are no part of what a config is.
    config.write_text(before.replace('"init_checkpoint": ""', '"init_checkpoint": "a", "seed": 3'))
    assert identity_of(run, []) == {
        name: it.rows["boxes"][name] for name in ("config", "config_fingerprint")
    }


def test_two_runs_of_one_name_and_unknown_weights_are_refused(protocols, tmp_path):
    clash = [Protocol(name, "", str(tmp_path / "config.py")) for name in ("a", "a_repeat1")]
    Evaluation("ssl://moco_v2_800ep", clash, tmp_path, 0, 5, 1)
    with pytest.raises(InputError, match="two runs would be called a_repeat1"):
        Evaluation("ssl://moco_v2_800ep", clash, tmp_path, 0, 5, 2)
    with pytest.raises(
        InputError, match="no weights are named ssl://moco; there are ssl://moco_v1"
    ):
        Evaluation("ssl://moco", protocols, tmp_path, 0, 5)


def test_runs_of_other_settings_are_not_mixed(evaluation):
    evaluation().read()
    evaluation().read()
    for changes, said in (
        ({"seed": 6}, "seed=5 and this one has 6"),
        ({"overrides": ["a=1"]}, r"list of overrides=\[\] and this one has \['a=1'\]"),
    ):
        with pytest.raises(InputError, match=f"holds a study with {said}"):
            evaluation(**changes).read()


def test_damaged_records_are_refused(evaluation, tmp_path):
    it = evaluation()
    for text in ("{", "[]", '{"boxes": {}}', '{"boxes": 1}', '{"boxes": {"status": "done"}}'):
        (tmp_path / "out" / "runs.json").write_text(text)
        with pytest.raises(InputError, match=r"runs\.json is damaged"):
            evaluation()
    (tmp_path / "out" / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match=r"evaluation\.json is damaged"):
        it.read()


@pytest.fixture
def finished(evaluation):
    it = evaluation()
    it.rows = {
        "boxes": done(5, [["train.max_iter", 90000, 2]], bbox_AP=38.25, bbox_AP50=None),
        # By hand: mean 11, deviation sqrt((1 + 0 + 1) / 2) = 1.
        "few_fold0": done(5, segm_AP=10.0),
        "few_fold1": done(6, segm_AP=11.0),
        "few_fold2": done(7, segm_AP=12.0),
    }
    return it


def test_the_checkpoints_row_stands_above_the_published_ones(finished):
    lines = format_markdown(finished, "mine|ours.pth").splitlines()
    assert lines[0] == "| pretraining | boxes box AP | boxes box AP50 | few mask AP |"
    assert lines[2:5] == [
        "| **mine\\|ours.pth** | 38.2* | * | 11.0 ± 1.0 |",
        "| *published*: A \\| B | 40.0 [1] | 60.2 [1] |  |",
        "| *published*: C | 41.0† [2] |  |  |",
    ]
    assert lines[8] == "| boxes | done | 5 | `555555555555` | `abc` | `train.max_iter` |"
    text = "\n".join(lines)
    assert "\\* Not the protocol's recipe" in text and "few: 3 of 3 folds" in text
    assert "\n† Published of a protocol that is not the same, or is not known" in text
    assert "\n† boxes: trained twice as long.\n" in text
    assert "\nOf one run each: boxes. Another seed" in text
    assert lines[-2:] == ["[1] one paper  ", "[2] another paper"]


def test_a_row_that_is_the_protocols_own_has_no_mark(finished):
    finished.rows["boxes"]["differs"] = []
    text = format_markdown(finished, "mine")
    assert "| **mine** | 38.2 |  | 11.0 ± 1.0 |" in text and "Not the protocol's" not in text


def test_repeats_are_runs_with_seeds_of_their_own(evaluation, protocols):
    it = evaluation(repeats=3)
    assert [(r.name, r.seed) for r in it.runs(protocols[0])] == [
        ("boxes", 5),
        ("boxes_repeat1", 6),
        ("boxes_repeat2", 7),
    ]
    assert len(it.runs(protocols[1])) == 3  # folds
    # By hand: mean 31, deviation sqrt((1 + 1) / 1) = 1.4.
    it.rows = {"boxes": done(5, bbox_AP=30.0), "boxes_repeat1": done(6, bbox_AP=32.0)}
    text = format_markdown(it, "mine")
    assert "| **mine** | 31.0 ± 1.4 |" in text
    assert "boxes: 2 of 3 runs, mean ± standard deviation (n - 1)." in text
    assert "| boxes_repeat2 | missing | 7 |" in text


def test_the_csv_has_everything_and_labels_what_is_published(finished):
    rows = list(csv.DictReader(format_csv(finished, "mine").splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [(r["protocol"], r["metric"], r["kind"], r["value"]) for r in rows] == [
        ("boxes", "bbox/AP", "here", "38.25"),
        ("boxes", "bbox/AP", "published", "40.0"),
        ("boxes", "bbox/AP", "published", "41.0"),
        ("boxes", "bbox/AP50", "here", ""),
        ("boxes", "bbox/AP50", "published", "60.25"),
        ("few", "segm/AP", "here", "11.0"),
    ]
    assert rows[0]["fields_that_differ"] == "train.max_iter" and rows[1]["source"] == "one paper"
    assert [row["protocol_differs"] for row in rows[:3]] == ["", "", "trained twice as long"]
    assert (rows[-1]["deviation"], rows[-1]["runs"], rows[-1]["seeds"]) == ("1.0", "3", "5 6 7")
    assert rows[-1]["fingerprints"].split() == ["5" * 64, "6" * 64, "7" * 64]


def test_results_come_from_the_run_folder(tmp_path):
    """A recipe as published has no differences, and one that is not tells which."""
    from ssl_backbones.engine.config import load_config
    from ssl_backbones.engine.recipe import recipe
    from ssl_backbones.evaluation.metrics import write_metrics
    from ssl_backbones.studies.protocol_runs import result_of, runs_of

    protocol = known()["mmdet_1x"]
    (run,) = runs_of(protocol, seed=0, folds=5)
    cfg = load_config(str(protocol.config_path()), ["train.seed=0", "train.init_checkpoint=a.pkl"])
    metrics = {"bbox": {"AP": 38.1, "AP50": 58.0, "AP-cat": 1.0}, "segm": {"AP": float("nan")}}
    write_metrics(metrics, str(tmp_path / "inference" / "metrics.json"), "coco_2017_val")

    def told(fields):
        content = {"recipe": fields, "environment": {}, "starts": [], "seed": 0}
        (tmp_path / "run.json").write_text(json.dumps({**content, "fingerprint": "f"}))
        return result_of(run, tmp_path)

    result = told({**recipe(cfg, slots=8), "weights": "abc"})
    assert result["metrics"] == {"bbox/AP": 38.1, "segm/AP": None}
    assert (result["differs"], result["weights"], result["seed"]) == ([], "abc", 0)
    other = told({**recipe(cfg, slots=2), "optimizer.lr": 0.01})
    assert other["differs"] == [["optimizer.lr", 0.02, 0.01], ["slots", 8, 2]]
    (tmp_path / "inference" / "metrics.json").unlink()
    with pytest.raises(InputError, match="has no metrics"):
        told({})
