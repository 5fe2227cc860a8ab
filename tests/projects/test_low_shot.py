"""Low-shot COCO: lists that are the same everywhere, runs that go on, and one table."""

import csv
import hashlib
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import run_training_command, training_commands
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from page_commands import commands

from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.recipe import compare, recipe
from ssl_backbones.errors import InputError

CHECKOUT = Path(__file__).parents[2]
README = "projects/low_shot/README.md"
SCRIPT = "projects/low_shot/low_shot.py"
COCO_TRAIN = 118_287  # images in instances_train2017.json


@pytest.fixture(scope="module", autouse=True)
def checkout_on_the_path():
    """As the project's scripts have it when they run."""
    sys.path.insert(0, str(CHECKOUT))
    yield
    sys.path.remove(str(CHECKOUT))


@pytest.fixture(scope="module")
def lists():
    return importlib.import_module("projects.low_shot.lists")


@pytest.fixture(scope="module")
def low_shot():
    return importlib.import_module("projects.low_shot.low_shot")


@pytest.fixture(scope="module")
def written(lists, miniatures):
    """The folder of the lists of COCO in miniature."""
    lists.write_lists(miniatures)
    return miniatures / "coco_low_shot"


# The lists


# By coreutils, from the ids on its standard input, with F the fold and N the number of images:
#   while read i; do echo "$(printf 0:$F:$i | sha256sum | cut -d' ' -f1) $i"; done |
#     sort | head -n $N | cut -d' ' -f2 | sort -n | sha256sum
@pytest.mark.parametrize(
    ("ids", "share", "fold", "number", "sha256"),
    [
        (
            range(1, 41),
            10,
            0,
            4,
            "c37511cfb27fdb379d3234c4f51e9041c4fa62209bc8df83f1c9ac2e06a6a869",
        ),
        (
            range(1, 41),
            10,
            3,
            4,
            "5af44a1c23183ec6b43756001aa4ddca1216c968bee2647ddb9ba7b9ca785952",
        ),
        (
            range(1, 3001, 3),
            *(5, 2, 50),
            "cad95c89f362a450f50721f353c6c6c7d54bc6c234cf4a5bcefd5431645bcbdb",
        ),
    ],
)
def test_a_list_is_the_same_on_every_machine(lists, ids, share, fold, number, sha256):
    chosen = lists.choose(reversed(ids), share, fold)
    assert len(chosen) == number and chosen == sorted(chosen)
    assert hashlib.sha256(lists.as_text(chosen).encode()).hexdigest() == sha256


def test_smaller_shares_are_inside_larger_ones_and_folds_are_not_alike(lists):
    ids = range(0, 20 * 500, 20)
    chosen = {(s, f): lists.choose(ids, s, f) for s in lists.SHARES for f in lists.FOLDS}
    for fold in lists.FOLDS:
        for less, more in ((1, 2), (2, 5), (5, 10)):
            assert set(chosen[less, fold]) < set(chosen[more, fold])
    assert len({tuple(chosen[10, fold]) for fold in lists.FOLDS}) == 5
    assert [len(chosen[share, 0]) for share in lists.SHARES] == [5, 10, 25, 50]


def test_the_readme_says_how_many_of_coco_they_are(lists):
    numbers = [len(lists.choose(range(COCO_TRAIN), share, 0)) for share in lists.SHARES]
    assert numbers == [1183, 2366, 5914, 11829]  # of 1182.87, 2365.74, 5914.35 and 11828.7
    assert "1,183, 2,366, 5,914 and 11,829" in (CHECKOUT / README).read_text()
    # Halves go up, and there is always one.
    assert [len(lists.choose(range(n), 1, 0)) for n in (1, 49, 149, 150, 250)] == [1, 1, 1, 2, 3]


def test_a_list_is_the_part_of_coco_that_has_its_images(lists, written, miniatures):
    whole = json.loads((miniatures / lists.SOURCE).read_text())
    ids = [image["id"] for image in whole["images"]]
    for share in lists.SHARES:
        for fold in lists.FOLDS:
            chosen = lists.choose(ids, share, fold)
            part = json.loads((written / f"{share}_fold{fold}.json").read_text())
            assert part["categories"] == whole["categories"]
            for key, of in (("images", "id"), ("annotations", "image_id")):
                assert part[key] == [one for one in whole[key] if one[of] in chosen]
            text = (written / f"{share}_fold{fold}.txt").read_text()
            assert text == "".join(f"{id_}\n" for id_ in chosen)


def test_detectron2_reads_it_by_its_name(lists, written):
    lists.register()
    lists.register()
    ours = DatasetCatalog.get("coco_low_shot_10_fold2_train")
    ids = [record["image_id"] for record in ours]
    whole = DatasetCatalog.get("coco_2017_train")
    assert ours == [record for record in whole if record["image_id"] in ids] and len(ours) == 1
    metadata = MetadataCatalog.get("coco_low_shot_10_fold2_train")
    assert metadata.thing_classes == MetadataCatalog.get("coco_2017_val").thing_classes
    assert metadata.made_by == "python projects/low_shot/lists.py"


@pytest.fixture()
def coco(miniatures, tmp_path):
    """A copy of COCO in miniature, with nothing but the annotations."""
    folder = tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    shutil.copy(miniatures / "coco/annotations/instances_train2017.json", folder)
    return tmp_path


def test_the_command_makes_the_same_bytes_and_leaves_them_there(lists, written, coco, capsys):
    assert lists.main(["--root", str(coco)]) == 0
    first, _ = capsys.readouterr()
    made = coco / "coco_low_shot"
    assert len(list(made.iterdir())) == 41
    for path in made.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert lists.main(["--root", str(coco)]) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_lists_of_another_file_are_made_anew(lists, written, coco):
    lists.write_lists(coco)
    source = coco / lists.SOURCE
    content = json.loads(source.read_text())
    content["images"] = content["images"][:3]
    source.write_text(json.dumps(content))
    lists.write_lists(coco)
    ids = {image["id"] for image in content["images"]}
    found = json.loads((coco / "coco_low_shot" / "10_fold1.json").read_text())["images"]
    assert {image["id"] for image in found} < ids


@pytest.mark.parametrize("name", ["10_fold1.json", "1_fold4.txt"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("[]")])
def test_a_list_that_is_missing_or_another_is_written_again(lists, written, coco, name, change):
    lists.write_lists(coco)
    change(coco / "coco_low_shot" / name)
    lists.write_lists(coco)
    assert (coco / "coco_low_shot" / name).read_bytes() == (written / name).read_bytes()


def test_the_digest_is_of_what_training_reads(lists, coco):
    lists.write_lists(coco)
    path = coco / "coco_low_shot" / "10_fold1.json"
    number, sha256 = lists.read_list(coco, 10, 1)
    sha256sum = subprocess.run(["sha256sum", path], capture_output=True, text=True).stdout
    assert number == len(json.loads(path.read_text())["images"]) and sha256sum.split()[0] == sha256
    path.write_text(path.read_text().replace("bbox", "box"))
    assert lists.read_list(coco, 10, 1) != (number, sha256)
    for text in ("[", "[]"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"10_fold1.json cannot be read.*lists.py makes it"):
            lists.read_list(coco, 10, 1)


def test_what_the_lists_cannot_be_made_of_is_refused(lists, coco, tmp_path):
    source = coco / lists.SOURCE
    text = source.read_text()
    (coco / "coco_low_shot").mkdir()
    with pytest.raises(InputError, match="coco_low_shot holds something else"):
        lists.write_lists(coco)
    (coco / "coco_low_shot").rmdir()
    for broken in (text[:-40], "[]", '{"images": [{}]}'):
        source.write_text(broken)
        with pytest.raises(InputError, match=r"instances_train2017.json is not in COCO's format"):
            lists.write_lists(coco)
    source.unlink()
    with pytest.raises(InputError, match=r"instances_train2017.json is not there: put COCO below"):
        lists.write_lists(coco)
    assert not (coco / "coco_low_shot").exists()


# The configs


@pytest.mark.parametrize("share", [1, 2, 5, 10])
def test_a_config_is_the_recipe_on_fewer_images(share):
    path = CHECKOUT / f"projects/low_shot/configs/low_shot_{share}.py"
    differences = compare(recipe(load_config("moco_1x")), recipe(load_config(str(path))))
    assert differences == [
        (
            "dataloader.train.dataset.names",
            "coco_2017_train",
            f"coco_low_shot_{share}_fold0_train",
        ),
        ("train.best_metric", "bbox/AP", None),
        ("train.eval_period", 5000, 0),
    ]
    cfg = LazyConfig.load(str(path))
    assert f"low_shot_{share}" in cfg.train.output_dir


def test_the_schedule_is_that_of_the_sources_by_the_linear_rule():
    """Soft Teacher's configs/baseline/base.py, of 8 images, lr 0.01."""
    cfg = LazyConfig.load(str(CHECKOUT / "projects/low_shot/configs/low_shot_1.py"))
    assert cfg.dataloader.train.total_batch_size == 2 * 8
    assert cfg.optimizer.lr == 2 * 0.01
    assert 2 * cfg.train.max_iter == 180_000
    assert [2 * step for step in cfg.lr_multiplier.scheduler.milestones] == [120_000, 160_000]


@pytest.mark.parametrize("line", training_commands(README))
def test_a_training_command_of_the_readme(line, runs, written, converted, tmp_path):
    run_training_command(runs, line, tmp_path / "run", f"train.init_checkpoint={converted}")
    metrics = json.loads((tmp_path / "run" / "inference" / "metrics.json").read_text())
    assert metrics["dataset"] == "coco_2017_val" and {"bbox", "segm"} <= set(metrics)


# The whole


def test_every_command_of_the_readme_is_run_here():
    """`low_shot.py` by `study`, with a smaller detector; its plan and the lists by tests of their own."""
    lines = set(commands((CHECKOUT / README).read_text())) - set(training_commands(README))
    assert lines == {
        f"python {SCRIPT} --num-gpus 8",
        f"python {SCRIPT} --plan",
        "python projects/low_shot/lists.py",
    }


CONFIG = """
import sys
from detectron2.config import LazyConfig

sys.path.insert(0, {checkout!r})
from projects.low_shot.lists import register

register()
_tiny = LazyConfig.load({tiny!r})
dataloader, lr_multiplier, model, optimizer, train = (
    _tiny[name] for name in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)
model.roi_heads.num_classes = 80
dataloader.test.dataset.names = "coco_2017_val"
train.eval_period = 0
train.best_metric = None
"""


@pytest.fixture(scope="module")
def study(written, miniatures, tmp_path_factory):
    """Starts the study with a tiny detector in place of the recipe's, on 10 %."""
    folder = tmp_path_factory.mktemp("low_shot")
    text = CONFIG.format(checkout=str(CHECKOUT), tiny=str(CHECKOUT / "tests" / "tiny.py"))
    (folder / "configs").mkdir()
    (folder / "configs" / "low_shot_10.py").write_text(text)
    words = ["--output", str(folder / "out"), "--configs", str(folder / "configs")]
    words += ["--shares", "10", "--folds", "1,0"]

    def start(*more):
        return subprocess.Popen(
            [sys.executable, SCRIPT, *words, *more],
            cwd=CHECKOUT,
            env={**os.environ, "DETECTRON2_DATASETS": str(miniatures), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    start.folder = folder / "out"
    return start


@pytest.fixture(scope="module")
def broken_and_ended(study):
    """Kill the study in the middle of its second run and start it again: rows before, what it then said."""
    first = study()
    progress = study.folder / "10_fold1" / "metrics.json"
    end = time.monotonic() + 300
    while not (progress.exists() and progress.read_text()) and time.monotonic() < end:
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    first.kill()
    first.wait()
    done = rows(study)
    second = study()
    said, _ = second.communicate(timeout=300)
    assert second.returncode == 0, said
    return done, said


def rows(study):
    with open(study.folder / "runs.csv", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_it_goes_on_where_it_was_killed(study, broken_and_ended):
    before, said = broken_and_ended
    assert list(before) == ["10_fold0"] and "== 1 runs, such as" in said
    after = rows(study)
    assert list(after) == ["10_fold0", "10_fold1"] and after["10_fold0"] == before["10_fold0"]
    assert all(row["status"] == "done" and row["iterations"] == "12" for row in after.values())
    # In the middle of the run, too.
    run = json.loads((study.folder / "10_fold1" / "run.json").read_text())
    assert len(run["starts"]) == 2
    log = (study.folder / "logs" / "10_fold1.txt").read_text()
    assert "iter" in log and "Traceback" not in log


def test_a_row_has_what_the_run_is_known_by(study, broken_and_ended, lists, miniatures):
    for fold, row in enumerate(rows(study).values()):
        folder = study.folder / row["run"]
        run = json.loads((folder / "run.json").read_text())
        metrics = json.loads((folder / "inference" / "metrics.json").read_text())
        assert row["fingerprint"] == run["fingerprint"] and row["weights"] == "random"
        assert float(row["bbox/AP"]) == (metrics["bbox"]["AP"] or 0.0)
        assert (int(row["images"]), row["list"]) == lists.read_list(miniatures, 10, fold)
        assert run["recipe"]["train.seed"] == fold == int(row["seed"])
        names = f"coco_low_shot_10_fold{fold}_train"
        assert run["recipe"]["dataloader.train.dataset.names"] == names
        assert row["command"].endswith(" ".join(run["command_line"][1:]))


def test_it_ends_with_a_table(study, broken_and_ended):
    _, said = broken_and_ended
    table = (study.folder / "table.md").read_text()
    assert table in said and "2 of 2 runs are done" in said
    aps = [float(row["bbox/AP"]) for row in rows(study).values()]
    mean, deviation = statistics.fmean(aps), statistics.stdev(aps)
    assert f"| 10 % | 1 | 2 of 5 | {mean:.2f} ± {deviation:.2f} |" in table
    content = json.loads((study.folder / "table.json").read_text())
    assert content["10"]["metrics"]["bbox/AP"]["values"] == aps
    assert (content["10"]["folds"], content["10"]["folds_done"]) == (5, 2)


def test_another_study_in_the_same_folder_is_refused(study, broken_and_ended):
    other = study("train.max_iter=3")
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 2 and said.count("\n") == 1
    assert "holds a study with overrides=[] and this one has ['train.max_iter=3']" in said


# Rows and tables


def row(low_shot, share, fold, ap, status="done"):
    made = dict.fromkeys(low_shot.COLUMNS, "") | {"run": f"{share}_fold{fold}", "status": status}
    made |= {"share": str(share), "fold": str(fold), "seed": str(fold)}
    numbers = {} if ap is None else {"bbox/AP": repr(ap), "segm/AP": repr(ap / 2)}
    return made | numbers | {"images": "1183"}


def test_means_and_deviations_are_over_the_folds_that_are_done(low_shot):
    """By hand: 9, 10 and 12 have the mean 31/3 and the variance 7/3."""
    made = [row(low_shot, 1, fold, ap) for fold, ap in enumerate([9.0, 10.0, 12.0])]
    made.append(row(low_shot, 1, 3, None, "exit status 1: error: no disk"))
    made.append(row(low_shot, 5, 0, 20.0))
    found = low_shot.summarize(made)
    assert found[1]["bbox/AP"].mean == pytest.approx(31 / 3)
    assert found[1]["bbox/AP"].deviation == pytest.approx((7 / 3) ** 0.5)
    assert found[5]["segm/AP"].values == [10.0] and found[5]["segm/AP"].deviation is None
    lines = low_shot.format_markdown(made, 5).splitlines()
    assert lines[2] == (
        "| 1 % | 1183 | 3 of 5 | 10.33 ± 1.53 |  |  | 5.17 ± 0.76 |  |  | 9.00, 10.00, 12.00 | 10 |"
    )
    assert lines[3].endswith("| 20.00 | 20.92 |") and "± " not in lines[3]
    assert {line.count("|") for line in lines[:4]} == {lines[0].count("|")}
    assert "same weights" not in low_shot.format_markdown(made, 5)
    made[1]["weights"] = "another file"
    assert "Not all runs started from the same weights" in low_shot.format_markdown(made, 5)


def test_published_numbers_stand_in_the_readme_as_such(low_shot):
    page = (CHECKOUT / README).read_text()
    assert "| COCO | published, supervised |" in page
    for share, ap in low_shot.PUBLISHED.items():
        assert f"| {share} % | {ap} |" in page


def test_a_failed_run_is_a_row_and_the_exit_status(low_shot, tmp_path, miniatures, monkeypatch):
    from ssl_backbones.studies.processes import Outcome

    study = low_shot.LowShot(low_shot.parse_arguments(["--output", str(tmp_path)]))
    log = tmp_path / "log.txt"
    log.write_text("error: no disk\n\n")
    study.ended(study.step("1_fold0"), Outcome(2, 3.4, 1.6, log))
    assert rows(_In(tmp_path))["1_fold0"]["status"] == "exit status 2: error: no disk"
    assert study.failed() == ["1_fold0"] and len(study.missing()) == 20
    # One that ended well and left nothing is no more than that.
    study.ended(study.step("2_fold0"), Outcome(0, 3.4, 1.6, log))
    assert rows(_In(tmp_path))["2_fold0"]["status"].startswith("the result cannot be read: ")
    assert study.failed() == ["1_fold0", "2_fold0"] and len(study.missing()) == 20


def test_a_fold_without_a_value_does_not_count(low_shot):
    """As of a run whose metric COCO gives no number."""
    made = [row(low_shot, 10, fold, ap) for fold, ap in enumerate([9.0, float("nan"), None])]
    made.append(row(low_shot, 10, 3, None, "exit status 1: error: no disk"))
    for number, one in enumerate(made[:3]):
        one["fingerprint"] = f"recipe {number}"
    content = json.loads(
        json.dumps(low_shot.as_json(made, 5), allow_nan=False), parse_constant=pytest.fail
    )["10"]
    assert content["folds_done"] == 1 and content["fingerprints"] == ["recipe 0"]
    assert content["metrics"]["bbox/AP"] == {"mean": 9.0, "deviation": None, "values": [9.0]}
    assert content["metrics"]["bbox/AP50"] == {"mean": None, "deviation": None, "values": []}
    line = low_shot.format_markdown(made, 5).splitlines()[2]
    assert "| 1 of 5 | 9.00 |" in line and "nan" not in line and line.endswith("| 9.00 | 26.94 |")


class _In:
    """Where `rows` looks."""

    def __init__(self, folder):
        self.folder = folder


def test_the_plan_needs_no_torch_and_says_how_long_it_takes(run_tool):
    """Command of the README; 90,000 iterations of 0.261 s are 6.5 hours."""
    assert f"python {SCRIPT} --plan" in (CHECKOUT / README).read_text()
    code = (
        f"import runpy, sys; sys.argv = [{SCRIPT!r}, '--plan', '--num-gpus', '8']\n"
        f"try:\n    runpy.run_path({SCRIPT!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len([line for line in lines if "tools/train_net.py" in line]) == 20
    assert "low_shot_1.py" in lines[0] and "low_shot_2.py" in lines[1]  # fold by fold
    assert "20 runs of 90,000 iterations" in lines[-2]
    assert "6.5 hours on 8 V100" in lines[-2] and lines[-2].endswith("all 130")


def test_the_plan_says_what_is_left(low_shot, tmp_path, monkeypatch, capsys):
    """By hand: 19 runs of 18,000 iterations of 0.261 s, 1.3 hours each, take 24.8."""
    monkeypatch.chdir(tmp_path)
    words = ["--output", "study", "--plan", "train.max_iter=7", "train.max_iter=18000"]
    assert low_shot.main(words) == 0 and not list(tmp_path.iterdir())
    assert "\n20 runs of 18,000 iterations" in capsys.readouterr().out
    study = low_shot.LowShot(low_shot.parse_arguments(words))
    study.folder.mkdir()
    study.read()
    done = [row(low_shot, 1, 0, 9.0), row(low_shot, 2, 0, None, "exit status 1: error: no disk")]
    study.record.write({each["run"]: each for each in done})
    assert low_shot.main(words) == 0
    said = capsys.readouterr().out
    assert f"train.output_dir={tmp_path / 'study' / '2_fold0'} " in said
    assert "1_fold0 " not in said and said.count("tools/train_net.py") == 19
    assert "\n1 of 20 runs are done\n" in said
    assert "\n19 runs of 18,000 iterations, each about 1.3 hours" in said and ", all 25\n" in said
    assert low_shot.main(words[:3]) == 2
    assert "holds a study with overrides=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-gpus", "0"], "--num-gpus 0: give at least 1"),
        (["train.max_iter=1e3"], "train.max_iter=1e3: give a whole number"),
        (["--weights", "/no/such.pkl"], "--weights /no/such.pkl: there is no such file"),
        (["--jobs", "0"], "--jobs 0"),
        (["--configs", "nowhere"], "there is no low_shot_1.py in it"),
        (["train.seed"], "'train.seed' is no override"),
    ],
)
def test_bad_arguments_are_one_line(low_shot, tmp_path, capsys, words, message):
    assert low_shot.main(["--output", str(tmp_path / "study"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value"), [("--shares", "3"), ("--folds", "0,5"), ("--folds", "")]
)
def test_shares_and_folds_that_there_are_not_are_refused(low_shot, capsys, option, value):
    with pytest.raises(SystemExit) as refusal:
        low_shot.main([option, value])
    assert refusal.value.code == 2 and f"{value!r}: give some of" in capsys.readouterr().err
