"""When a run is evaluated, what is kept of it, when it ends: with a detector that training makes better."""

import json
import logging
import math
import re
import weakref
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, BoxMode, Instances
from running import TINY

from ssl_backbones.data.loading import build_train_loader
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.hooks.ema import EMA, WeightAverage
from ssl_backbones.engine.hooks.evaluations import EvaluationsHook
from ssl_backbones.engine.hooks.saving import Checkpoints
from ssl_backbones.engine.trainer import Trainer
from ssl_backbones.errors import InputError


class Shifted(torch.nn.Module):
    """Detects every annotated box, `shift` pixels beside it; the loss is the shift."""

    def __init__(self, by_image, shift):
        super().__init__()
        self.by_image = by_image
        self.shift = torch.nn.Parameter(torch.tensor(float(shift)))
        self.blind = False

    def forward(self, inputs):
        if self.training:
            return {"loss_shift": self.shift.clone()}
        return [{"instances": self._detect(image)} for image in inputs]

    def _detect(self, image):
        found = self.by_image[image["image_id"]]
        boxes = [BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for a in found]
        result = Instances((image["height"], image["width"]))
        result.pred_boxes = Boxes(torch.tensor(boxes) + self.shift)
        result.scores = torch.linspace(0.9, 0.5, len(found))
        result.pred_classes = torch.tensor([a["class"] for a in found])
        return result[:0] if self.blind else result


@pytest.fixture(scope="session")
def by_image(digits):
    from detectron2.data import MetadataCatalog

    import ssl_backbones.data  # noqa: F401 (registers digits_test)

    content = json.loads(Path(MetadataCatalog.get("digits_test").json_file).read_text())
    ids = sorted(category["id"] for category in content["categories"])
    found = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        found[annotation["image_id"]].append(
            {**annotation, "class": ids.index(annotation["category_id"])}
        )
    return found


@pytest.fixture
def run(by_image, tmp_path):
    """Makes a trainer that saves before it evaluates, and has an average if that is wanted."""

    def make(*overrides, shift=5.0, lr=1.0, ema=False, folder=tmp_path):
        cfg = load_config(
            TINY,
            [f"train.output_dir={folder}", "train.eval_period=2", "train.max_iter=6", *overrides],
        )
        model = Shifted(by_image, shift)
        trainer = Trainer(model, _Endless(), torch.optim.SGD(model.parameters(), lr=lr))
        trainer.checkpointer = StrictCheckpointer(
            model, str(folder), trainer=weakref.proxy(trainer)
        )
        average = WeightAverage(model, 0.9) if ema else None
        trainer.evaluations = EvaluationsHook(cfg, model, trainer.checkpointer, average)
        saving = Checkpoints(trainer.checkpointer, period=100, eval_period=2)
        trainer.register_hooks([EMA(average) if ema else None, saving, trainer.evaluations])
        return trainer

    return make


class _Endless:
    def __iter__(self):
        while True:
            yield []


def history(trainer, name):
    return {iteration: value for value, iteration in trainer.storage.history(name).values()}


def best_shift(trainer):
    file = Path(trainer.checkpointer.save_dir) / "model_best.pth"
    return torch.load(file, weights_only=True)["model"]["shift"].item()


def test_every_period_and_at_the_end(run, tmp_path):
    trainer = run("train.max_iter=5", lr=1.0)
    trainer.train(0, 5)
    ap = history(trainer, "bbox/AP")
    assert list(ap) == [1, 3, 4]
    # Five pixels beside, one less at each step: in the end exactly right.
    assert ap[1] < ap[3] < ap[4] == 100
    written = json.loads((tmp_path / "inference" / "metrics.json").read_text())
    assert written["bbox"]["AP"] == 100
    assert history(trainer, "bbox/AP-0").keys() == ap.keys()
    # What no image has is no number, and not told.
    assert written["bbox"]["APl"] is None
    assert "bbox/APl" not in trainer.storage.histories()
    assert trainer.model.training


def test_the_best_checkpoint_is_that_of_the_best_evaluation(run):
    # Right at the second evaluation, too far to the other side afterwards.
    trainer = run(shift=4.0)
    trainer.train(0, 6)
    assert history(trainer, "bbox/AP")[3] == 100 > history(trainer, "bbox/AP")[5]
    assert best_shift(trainer) == 0.0
    assert trainer.evaluations.state_dict() == {"best": 100, "best_iteration": 3, "since": 1}


def test_another_metric_may_decide(run):
    trainer = run("train.best_metric=bbox/AP50", shift=2.0, lr=0.5)
    trainer.train(0, 6)
    # AP50 does not see the last pixel: the first evaluation cannot be bettered.
    assert best_shift(trainer) == 1.0
    assert len(set(history(trainer, "bbox/AP50").values())) == 1


def test_it_ends_after_so_many_evaluations_without_a_better_one(run):
    trainer = run("train.patience=2", "train.max_iter=20", lr=0.0)
    trainer.train(0, 20)
    assert list(history(trainer, "bbox/AP")) == [1, 3, 5]
    assert trainer.iter == 6
    assert trainer.stop.startswith("no better bbox/AP in 2 evaluations (train.patience)")
    assert trainer.stop.endswith("at iteration 1")


def test_a_better_one_starts_the_count_anew(run):
    trainer = run("train.patience=2", "train.max_iter=20", shift=5.0, lr=0.25)
    trainer.train(0, 20)
    assert trainer.stop is None and trainer.iter == 20


@pytest.mark.parametrize("patience, last", [(0, 5), (1, 3)])
def test_a_subset_on_the_way_and_all_images_in_the_end(run, tmp_path, patience, last):
    trainer = run("train.eval_subset=2", f"train.patience={patience}", lr=0.0)
    trainer.train(0, 6)
    assert list(history(trainer, "subset/bbox/AP")) == [1, 3, 5][: 2 if patience else 3]
    assert list(history(trainer, "bbox/AP")) == [last]
    images = {
        name: json.loads((tmp_path / name / "metrics.json").read_text())["images"]
        for name in ("inference_subset", "inference")
    }
    assert images == {"inference_subset": 2, "inference": 6}


def test_averaged_weights_are_evaluated_beside_the_models_own(run, tmp_path):
    trainer = run("train.best_metric=ema/bbox/AP", ema=True, shift=6.0)
    trainer.train(0, 6)
    own, averaged = history(trainer, "bbox/AP"), history(trainer, "ema/bbox/AP")
    assert own[5] == 100 > averaged[5] > 0
    assert trainer.evaluations.state_dict()["best"] == averaged[5]
    assert trainer.model.shift.item() == 0.0
    # The average of the shifts 6 to 0 with the decays 2/11, 3/12, ... is what was evaluated.
    average = 6.0
    for step, shift in enumerate([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * shift
    found = json.loads((tmp_path / "inference_ema" / "coco_instances_results.json").read_text())
    exact = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert found[0]["bbox"][0] - exact[0]["bbox"][0] == pytest.approx(average, abs=1e-4)


def test_a_metric_that_there_is_not_is_told_with_those_there_are(
    run, caplog, monkeypatch, tmp_path
):
    monkeypatch.setattr(logging.getLogger("ssl_backbones"), "propagate", True)
    message = r"best_metric=box/AP is no metric.*bbox/AP, bbox/AP50"
    run("train.best_metric=box/AP").train(0, 6)
    # pytest may hear a record from two loggers of the chain.
    told = {record for record in caplog.records if re.search(message, record.getMessage())}
    assert len(told) == 1 and told.pop().getMessage().endswith("no model_best is kept")
    assert not (tmp_path / "model_best.pth").exists()
    with pytest.raises(InputError, match=f"{message}.*train.patience=0"):
        run("train.best_metric=box/AP", "train.patience=1").train(0, 6)
    with pytest.raises(InputError, match=r"needs averaged weights: add train\.ema\.enabled=True"):
        run("train.best_metric=ema/bbox/AP")


def test_what_the_evaluation_would_refuse_is_refused_before_training(run):
    with pytest.raises(InputError, match=r"this model is a Shifted: set train\.tta\.enabled=False"):
        run("train.tta.enabled=True")


def test_without_a_best_metric_nothing_is_kept(run, tmp_path):
    run("train.best_metric=null", "train.patience=1", lr=0.0).train(0, 6)
    assert not (tmp_path / "model_best.pth").exists()


def test_no_detection_at_all_is_no_mistake_of_the_users(run, tmp_path):
    trainer = run("train.best_metric=segm/AP")
    trainer.model.blind = True
    trainer.train(0, 6)
    assert trainer.evaluations.state_dict() == {"best": -math.inf, "best_iteration": -1, "since": 3}
    assert not (tmp_path / "model_best.pth").exists()


def test_done_again_from_the_state_before_it_ends_the_same(run, tmp_path):
    whole = run("train.patience=3", "train.max_iter=12", shift=4.0, folder=tmp_path)
    states = []
    whole.register_hooks([_Record(states, whole)])
    whole.train(0, 12)
    assert len(set(map(str, states))) > 3
    again = run("train.patience=3", "train.max_iter=12", folder=tmp_path)
    # The checkpoint's: model_best is written before the evaluation changes the state.
    again.checkpointer.load(str(tmp_path / "model_best.pth"))
    assert again.evaluations.state_dict() == states[2]
    again.train(again.iter + 1, 12)
    assert again.evaluations.state_dict() == whole.evaluations.state_dict()
    assert (again.stop, again.iter) == (whole.stop, whole.iter)
    assert history(again, "bbox/AP")[3] == history(whole, "bbox/AP")[3]


class _Record(EMA):
    """Notes the state of the evaluations after each iteration."""

    def __init__(self, states, trainer):
        self._states, self._evaluations = states, trainer.evaluations

    def after_step(self):
        self._states.append(self._evaluations.state_dict())


def test_training_goes_on_where_the_best_one_cannot_be_written(run, tmp_path, caplog):
    trainer = run()
    (tmp_path / "model_best.pth").mkdir()
    trainer.train(0, 6)
    assert "no model_best of iteration 1: cannot write" in caplog.text
    assert len(history(trainer, "bbox/AP")) == 3


def test_augmentation_comes_in_the_end_only(tmp_path):
    overrides = ["max_iter=2", "eval_period=1", "tta.enabled=True", "tta.min_sizes=[48,64]"]
    cfg = load_config(TINY, [f"train.output_dir={tmp_path}", *(f"train.{o}" for o in overrides)])
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    loader = build_train_loader(cfg.dataloader.train, seed=0)
    trainer = Trainer(model, loader, torch.optim.SGD(model.parameters(), lr=1e-4))
    checkpointer = StrictCheckpointer(model, str(tmp_path), trainer=weakref.proxy(trainer))
    trainer.register_hooks([EvaluationsHook(cfg, model, checkpointer)])
    trainer.train(0, 2)
    assert list(history(trainer, "bbox/AP")) == [0, 1]
    assert list(history(trainer, "tta/segm/AP")) == [1]
    written = json.loads((tmp_path / "inference_tta" / "metrics.json").read_text())
    assert written["test_time_augmentation"].startswith("shorter side 48, 64, longer at most 4000")


def test_one_before_the_start_that_is_not_among_the_metrics(run, tmp_path):
    trainer = run("train.eval_at_start=True", shift=1.0)
    trainer.train(0, 6)
    written = json.loads((tmp_path / "inference_start" / "metrics.json").read_text())
    assert 0 < written["bbox"]["AP"] < 100
    assert list(history(trainer, "bbox/AP")) == [1, 3, 5]
