"""What an evaluation refuses before its first run, and that nothing is left of a refused start."""

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.fidelity.protocols import protocols as known
from ssl_backbones.studies.evaluation import Evaluation, check_start
from ssl_backbones.studies.protocol_runs import find
from tools import evaluate_backbone

DIGITS = """
from ssl_backbones import configs_folder
from detectron2.config import LazyConfig

dataloader = LazyConfig.load(str(configs_folder() / "moco_1x.py")).dataloader
dataloader.train.dataset.names = "digits_train"
dataloader.test.dataset.names = "digits_test"
train = {}
"""


@pytest.fixture
def config(tmp_path, digits):
    """A LazyConfig on digits, changed by further lines."""

    def make(name: str, *lines: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text("\n".join([DIGITS, *lines, ""]))
        return str(path)

    return make


@pytest.fixture
def evaluation(tmp_path):
    def make(*names: str, **given) -> Evaluation:
        return Evaluation("ssl://moco_v2_800ep", find(names), tmp_path / "out", 0, 1, **given)

    return make


def test_all_protocols_are_checked_before_the_first_runs(config, evaluation, tmp_path):
    good = config("good")
    check_start(evaluation(good), "cpu", 1)
    for lines, overrides, message in (
        (['dataloader.test.dataset.names = "nowhere"'], (), "dataset 'nowhere' is not registered"),
        (['dataloader.train.dataset.names = "lvis_v1_train"'], (), "annotations are not at"),
        (['dataloader.train.mapper.image_format = "BGR"'], (), "channel order disagrees"),
        ([], ["dataloader.train.total_batch_size=3"], "say train.scale_lr=linear"),
        ([], ["optimizer.nothing=3"], "unknown config key"),
        (["1 / 0 if False else missing"], (), "does not load: NameError"),
    ):
        bad = config("bad", *lines)
        with pytest.raises(InputError, match=f"^protocol .*: .*{message}"):
            check_start(evaluation(good, bad, overrides=overrides), "cpu", 1)
    with pytest.raises(InputError, match="does not divide among 3 processes"):
        check_start(evaluation(good), "cpu", 3)
    assert not (tmp_path / "out").exists()


def test_what_is_done_is_not_checked_again(config, evaluation, tmp_path):
    bad = config("bad", 'dataloader.train.dataset.names = "lvis_v1_train"')
    it = evaluation(bad)
    (run,) = it.runs(it.protocols[0])
    (tmp_path / "out").mkdir()
    it.begin(run)
    it.rows["bad"]["status"] = "done"
    check_start(it, "cpu", 1)


def test_training_images_among_the_test_images_are_refused(config, evaluation, digits):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from ssl_backbones.data import register_digits

    register_digits(digits, "same")
    try:
        # One JSON under another name: the same images in both roles.
        same = config("same", 'dataloader.train.dataset.names = "same_test"')
        with pytest.raises(InputError, match=r"protocol same: .*'same_test'.* share 6 images"):
            check_start(evaluation(same), "cpu", 1)
    finally:
        for name in ("same_train", "same_test"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_lists_of_images_are_made_first_and_what_stops_that_is_told(tmp_path, monkeypatch):
    from ssl_backbones.data.digits.miniatures import write_miniatures

    # The command that makes them looks there; this process has looked at its start.
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    output = tmp_path / "out"
    it = Evaluation("ssl://moco_v2_800ep", [known()["low_shot_1"]], output, 0, 1)
    with pytest.raises(InputError, match=r"lists\.py: .*instances_train2017\.json is not there"):
        check_start(it, "cpu", 1)
    assert not output.exists()
    write_miniatures(tmp_path, num_train=12, num_test=6, size=64, seed=0)
    monkeypatch.setattr("ssl_backbones.studies.evaluation._check_run", lambda *_: None)
    check_start(it, "cpu", 1)
    assert (tmp_path / "coco_low_shot" / "1_fold0.json").is_file() and not output.exists()


def test_too_few_gpus_are_one_line(config, tmp_path, capsys):
    import torch

    found, output = torch.cuda.device_count(), tmp_path / "out"
    words = ["ssl://moco_v2_800ep", "--protocols", config("good"), "--output", str(output)]
    assert evaluate_backbone.main([*words, "--num-gpus", str(found + 1)]) == 2
    error = capsys.readouterr().err
    expected = f"this machine has {found}" if found else "no usable GPU: add --device cpu"
    assert expected in error and error.count("\n") == 1 and not output.exists()


def test_a_file_that_is_no_checkpoint_leaves_no_folder(config, tmp_path, capsys):
    file, output = tmp_path / "notes.pth", tmp_path / "out"
    file.write_text("words")
    words = [str(file), "--protocols", config("good"), "--output", str(output), "--device", "cpu"]
    assert evaluate_backbone.main(words) == 2
    error = capsys.readouterr().err
    assert "notes.pth" in error and error.count("\n") == 1 and not output.exists()
