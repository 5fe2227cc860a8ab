"""The trainer as a user runs it, on the digits in miniature, on the CPU."""

import json
import os

import pytest
import torch


def metrics(folder, name="inference"):
    return json.loads((folder / name / "metrics.json").read_text())


def losses(folder):
    """Total loss by iteration, as logged."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}


@pytest.fixture(scope="module")
def train(run_tool, digits, small):
    def train(config, folder, *words, **options):
        folder = f"train.output_dir={folder}"
        return run_tool(
            "tools/train_net.py", "--config-file", config, folder, *small, *words, **options
        )

    return train


def test_help_is_quick_and_needs_no_torch(run_tool):
    code = (
        "import sys; sys.argv = ['train_net.py', '--help']\n"
        "try:\n    import runpy; runpy.run_path('tools/train_net.py', run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert "--eval-only" in result.stdout and "examples:" in result.stdout


@pytest.fixture(scope="module")
def run_folder(train, converted, tmp_path_factory):
    """20 iterations from a converted file, then 2 more by --resume."""
    folder = tmp_path_factory.mktemp("run")
    words = (f"train.init_checkpoint={converted}", "train.checkpointer.period=20")
    first = train(
        "configs/moco_1x.py", folder, *words, "train.max_iter=20", "train.eval_at_start=true"
    )
    assert first.returncode == 0, first.stderr
    second = train("configs/moco_1x.py", folder, *words, "train.max_iter=22", "--resume")
    assert second.returncode == 0, second.stderr
    return folder, first, second


def test_training_leaves_a_run_folder(run_folder):
    folder, first, _ = run_folder
    assert {
        "config.yaml",
        "log.txt",
        "metrics.json",
        "model_final.pth",
        "last_checkpoint",
        "inference",
    } <= {path.name for path in folder.iterdir()}
    assert (folder / "inference" / "coco_instances_results.json").exists()
    assert "--eval-only" in first.stdout and "model_final.pth" in first.stdout


def test_the_run_card_stands_in_the_log(run_folder):
    log = (run_folder[0] / "log.txt").read_text()
    for words in (
        "every backbone tensor",
        "checkpoint_0199.pth.tar (sha256 ",
        "BN for SyncBN (one process",
        "9,536 parameters, frozen",
        "2 images a step; the reference is 16, by 1 process",
    ):
        assert words in log
    assert "new, at random on purpose: roi_heads.box_predictor.cls_score.weight" in log


def test_the_stem_stayed_and_the_stages_moved(run_folder, moco_file):
    source = torch.load(moco_file, weights_only=True)["state_dict"]
    trained = torch.load(run_folder[0] / "model_final.pth", weights_only=True)["model"]
    prefix = "module.encoder_q."
    assert torch.equal(
        trained["backbone.bottom_up.stem.conv1.weight"], source[f"{prefix}conv1.weight"]
    )
    assert torch.equal(
        trained["backbone.bottom_up.stem.conv1.norm.running_var"],
        source[f"{prefix}bn1.running_var"],
    )
    for stage in ("2", "5"):
        mine = trained[f"backbone.bottom_up.res{stage}.0.conv1.weight"]
        theirs = source[f"{prefix}layer{int(stage) - 1}.0.conv1.weight"]
        assert not torch.equal(mine, theirs)
        # Moved from there, not drawn anew: random weights of this size have a cosine near 0.
        assert torch.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0) > 0.9


def test_resume_goes_on_where_it_stopped(run_folder):
    folder, *_ = run_folder
    assert sorted(losses(folder)) == list(range(22))
    assert "resumed from" in (folder / "log.txt").read_text()
    final = torch.load(folder / "model_final.pth", weights_only=True)
    assert final["trainer"]["iteration"] == 21


def test_evaluation_before_training_is_kept_apart(run_folder):
    assert metrics(run_folder[0], "inference_start")["dataset"] == "digits_test"


def test_eval_only_repeats_the_numbers(run_folder, train, tmp_path):
    folder = run_folder[0]
    result = train(
        "configs/moco_1x.py",
        tmp_path,
        "--eval-only",
        f"train.init_checkpoint={folder / 'model_final.pth'}",
    )
    assert result.returncode == 0, result.stderr
    assert metrics(tmp_path) == metrics(folder)
    same = "coco_instances_results.json"
    assert (tmp_path / "inference" / same).read_text() == (folder / "inference" / same).read_text()


# The other two are trained by the commands of the README, and moco_1x by the tests above.
@pytest.mark.parametrize("name", ["moco_ms2x", "swav_1x"])
def test_every_recipe_trains_and_evaluates(in_process, converted, small, tmp_path, name):
    words = (*small, f"train.init_checkpoint={converted}", f"train.output_dir={tmp_path}")
    status, errors = in_process("--config-file", f"configs/{name}.py", *words, "train.max_iter=2")
    assert status == 0, errors
    assert sorted(losses(tmp_path)) == [0, 1]
    final, again = tmp_path / "model_final.pth", tmp_path / "again"
    words = (*small, f"train.init_checkpoint={final}", f"train.output_dir={again}")
    status, errors = in_process("--config-file", name, "--eval-only", *words)
    assert status == 0, errors
    assert metrics(again) == metrics(tmp_path)


def test_from_scratch_is_said_in_the_log(in_process, small, tmp_path):
    words = (*small, f"train.output_dir={tmp_path}", "train.max_iter=1", "train.init_checkpoint=")
    words += ("model.backbone.bottom_up.freeze_at=0",)
    status, errors = in_process("--config-file", "configs/moco_1x.py", *words)
    assert status == 0, errors
    log = (tmp_path / "log.txt").read_text()
    assert "none: every layer starts from scratch, at random" in log
    assert "9,536 parameters, trains" in log


def test_a_config_of_detectron2_s_own_model_zoo_works_unchanged(in_process, small, tmp_path):
    """Mask R-CNN R50-FPN 1x: BGR, pixel statistics of its own, no option of this trainer in it."""
    from detectron2 import model_zoo
    from detectron2.config import instantiate

    config = model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    # In place of the ImageNet weights that it downloads: others, for the same network.
    backbone = model_zoo.get_config(config.rpartition("configs/")[2]).model.backbone.bottom_up
    torch.save({"model": instantiate(backbone).state_dict()}, tmp_path / "R-50.pth")
    words = [word for word in small if "train.mapper.augmentations.0.sample_style" not in word]
    words += [f"train.init_checkpoint={tmp_path / 'R-50.pth'}", f"train.output_dir={tmp_path}"]
    status, errors = in_process("--config-file", config, *words, "train.max_iter=2")
    assert status == 0, errors
    assert sorted(losses(tmp_path)) == [0, 1]
    assert metrics(tmp_path)["dataset"] == "digits_test"
    assert "res2" in (tmp_path / "log.txt").read_text()
    # Its own warm-up, a share of the run, and its own factor.
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert rows[0]["lr"] == pytest.approx(0.02 * 0.001)


def test_two_cpu_processes(train, converted, tmp_path):
    result = train(
        "configs/moco_1x.py",
        tmp_path,
        "--num-processes",
        "2",
        f"train.init_checkpoint={converted}",
        "train.max_iter=2",
    )
    assert result.returncode == 0, result.stderr
    log = (tmp_path / "log.txt").read_text()
    assert "naiveSyncBN for SyncBN (2 CPU processes" in log
    assert "2 images a step; the reference is 16, by 2 processes" in log
    assert metrics(tmp_path)["dataset"] == "digits_test"


def test_a_raw_file_is_converted_on_the_way(train, moco_file, tmp_path):
    folder, cache = tmp_path / "run", tmp_path / "cache"
    result = train(
        "configs/moco_1x.py",
        folder,
        f"train.init_checkpoint={moco_file}",
        "train.max_iter=1",
        env={**os.environ, "SSL_BACKBONES_CACHE": str(cache)},
    )
    assert result.returncode == 0, result.stderr
    assert "checkpoint_0199.pth.tar (sha256 " in (folder / "log.txt").read_text()
    assert len(list((cache / "converted").glob("*.pkl"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solver.lrr=1"], "unknown config key 'solver.lrr'"),
        (["train.max_iter=many"], "bad value for train.max_iter"),
        (["train.output_dir=/proc/run"], "cannot write to train.output_dir"),
        (["--num-gpus", "2"], "--num-gpus with train.device=cpu: use --num-processes"),
        (["--num-processes", "0"], "count from 1"),
        (["train.best_metric=bbox/APP"], "train.best_metric=bbox/APP is no metric of COCO"),
        (["train.amp.dtype=fp8"], "train.amp.dtype=fp8: is fp16 or bf16"),
        (["train.ema.decay=1.0"], "train.ema.decay=1.0: must be from 0 to below 1"),
        (["train.clip.norm=0"], "train.clip.norm=0: must be above 0"),
        (["train.scale_lr=null"], "say train.scale_lr=linear"),
        (["--num-machines", "2"], "--num-machines needs --dist-url"),
        (["dataloader.train.dataset.names=nowhere"], "dataset 'nowhere' is not registered"),
        (["train.init_checkpoint=/no/file.pkl"], "/no/file.pkl"),
        (["model.input_format=BGR"], "channel order disagrees"),
        (["--eval-only", "train.init_checkpoint="], "--eval-only needs weights"),
    ],
)
def test_a_wrong_start_is_one_line_and_status_2(in_process, small, tmp_path, words, message):
    status, errors = in_process(
        "--config-file", "configs/moco_1x.py", *small, f"train.output_dir={tmp_path}", *words
    )
    assert status == 2
    assert len(errors.splitlines()) == 1 and errors.startswith("error: ")
    assert message in errors


def test_a_backbone_alone_is_refused_for_evaluation(in_process, converted, small, tmp_path, digits):
    status, errors = in_process(
        "--config-file",
        "configs/moco_1x.py",
        "--eval-only",
        *small,
        f"train.init_checkpoint={converted}",
        f"train.output_dir={tmp_path}",
    )
    assert status == 2
    assert "This is a backbone alone" in errors.splitlines()[-1]


@pytest.fixture
def in_process(capsys, digits, untouched_loggers):
    """The command's own `main`, without the cost of a new process: exit status and standard error."""
    import runpy

    main = runpy.run_path("tools/train_net.py")["main"]

    def run(*words):
        capsys.readouterr()
        status = main(list(words))
        return status, capsys.readouterr().err

    return run
