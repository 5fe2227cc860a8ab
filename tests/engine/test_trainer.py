"""The loop on models whose gradients can be worked out by hand."""

import math

import pytest
import torch
from detectron2.engine import HookBase

from ssl_backbones import InputError
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.engine.hooks.saving import Checkpoints
from ssl_backbones.engine.trainer import NonFiniteError, Preempted, Trainer


class Dot(torch.nn.Module):
    """loss = weight . x, so that the gradient is x."""

    def __init__(self, noise=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.noise = noise

    def forward(self, batch):
        x = sum(torch.tensor(image["x"]) for image in batch) / len(batch)
        return {"dot": (self.weight * (x + self.noise * torch.rand(2))).sum()}


def image(*x, name="scene.jpg"):
    return {"x": [float(value) for value in x], "file_name": name}


def trainer_of(batches, model=None, **options):
    model = model or Dot()
    return Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=1.0), **options)


def forever(*batches):
    while True:
        yield from batches


def test_micro_batches_are_averaged():
    trainer = trainer_of([[image(2, 0)], [image(0, 4)]], accumulate=2)
    trainer.train(0, 1)
    assert trainer.model.weight.tolist() == [-1, -2]
    assert trainer.storage.latest()["grad_norm"][0] == pytest.approx(math.sqrt(5))
    assert trainer.batches == [[image(2, 0)], [image(0, 4)]]


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({}, [-3, -4]),
        ({"clip_norm": 1.0}, [-0.6, -0.8]),
        ({"clip_norm": 10.0}, [-3, -4]),
        ({"clip_value": 3.5}, [-3, -3.5]),
    ],
)
def test_clipping(options, step):
    trainer = trainer_of([[image(3, 4)]], **options)
    trainer.train(0, 1)
    assert trainer.model.weight.tolist() == pytest.approx(step, rel=1e-5)
    # The norm in the log is the one before clipping.
    assert trainer.storage.latest()["grad_norm"][0] == 5


def test_losses_are_logged_unsmoothed():
    seen = []

    class Look(HookBase):
        def after_step(self):
            latest = self.trainer.storage.latest()
            seen.append((latest["dot"], latest["total_loss"]))

    trainer = trainer_of(forever([image(1, 0)]))
    trainer.register_hooks([Look()])
    trainer.train(0, 3)
    # weight . x with the weight falling by 1 a step.
    assert seen == [((-n, n), (-n, n)) for n in range(3)]


def test_a_loss_that_is_not_finite_stops_before_the_step():
    trainer = trainer_of([[image(1, 1)], [image(math.nan, 1, name="bad.jpg")]])
    with pytest.raises(NonFiniteError) as caught:
        trainer.train(0, 2)
    assert trainer.model.weight.tolist() == [-1, -1]
    assert str(caught.value) == "not finite at iteration 1: rank 0: dot=nan on bad.jpg"


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    class Root(Dot):
        def forward(self, batch):
            # Finite at 0, with an infinite slope.
            return {"root": self.weight.sqrt().sum()}

    trainer = trainer_of([[image(1, 1)]], Root())
    with pytest.raises(NonFiniteError, match=r"gradient norm inf on scene\.jpg"):
        trainer.train(0, 1)
    assert trainer.model.weight.tolist() == [0, 0]


class Half(torch.nn.Module):
    """loss = 8 weight, in the precision of a linear layer under autocast."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.layer.weight)

    def forward(self, batch):
        product = self.layer(torch.full((1, 1), 8.0))
        assert product.dtype == torch.float16
        return {"half": product.sum()}


def test_loss_scaling_leaves_out_the_steps_that_overflow():
    """8 x 65,536 is beyond fp16's 65,504: the scale halves until 8 x 4,096, the first that is not."""
    trainer = trainer_of(forever([]), Half(), amp_dtype=torch.float16)
    trainer.train(0, 4)
    assert trainer.model.layer.weight.item() == 0
    assert trainer.grad_scaler.get_scale() == 4096
    trainer.train(4, 5)
    assert trainer.model.layer.weight.item() == -8
    assert trainer.storage.latest()["grad_norm"][0] == 8
    assert trainer.grad_scaler.get_scale() == 4096


def test_the_loss_scale_survives_a_resume():
    trainer, other = (trainer_of(forever([]), Half(), amp_dtype=torch.float16) for _ in range(2))
    trainer.train(0, 5)
    trainer.iter -= 1
    other.load_state_dict(trainer.state_dict())
    assert other.grad_scaler.state_dict() == trainer.grad_scaler.state_dict()
    assert other.grad_scaler.state_dict()["scale"] == 4096


def test_gradients_that_no_scale_makes_finite_stop_the_run():
    class Root(Half):
        def forward(self, batch):
            return {"half": super().forward(batch)["half"].float().sqrt()}

    trainer = trainer_of(forever([]), Root(), amp_dtype=torch.float16)
    with pytest.raises(NonFiniteError, match="gradient norm"):
        trainer.train(0, 100)
    # 17 halvings lead from 65,536 to 1/2.
    assert trainer.iter == 17


def test_a_state_of_other_parameters_is_refused():
    trainer, other = trainer_of(forever([image(1, 0)])), trainer_of(forever([]), Half())
    trainer.train(0, 1)
    state = trainer.state_dict()
    state["optimizer"]["param_groups"][0]["params"] = [0, 1]
    with pytest.raises(InputError, match=r"optimizer does not fit.*the same parameters train"):
        other.load_state_dict(state)


def test_the_model_s_randomness_depends_on_the_place_in_the_run():
    whole = trainer_of(forever([image(0, 0)]), Dot(noise=1))
    whole.train(0, 4)
    first = trainer_of(forever([image(0, 0)]), Dot(noise=1))
    first.train(0, 2)
    torch.rand(5)
    first.train(2, 4)
    assert first.model.weight.tolist() == whole.model.weight.tolist()
    other = trainer_of(forever([image(0, 0)]), Dot(noise=1), seed=1)
    other.train(0, 4)
    assert other.model.weight.tolist() != whole.model.weight.tolist()


def test_a_hook_can_end_the_training():
    class Enough(HookBase):
        def after_step(self):
            if self.trainer.iter == 2:
                self.trainer.stop = "enough"

    trainer = trainer_of(forever([image(1, 0)]))
    trainer.register_hooks([Enough()])
    trainer.train(0, 10)
    assert trainer.model.weight.tolist() == [-3, 0]


class Tell(HookBase):
    """Stands for what reports: evaluation, metrics."""

    def __init__(self, told, end_at=None):
        self.told, self.end_at = told, end_at

    def after_step(self):
        if self.trainer.iter == self.end_at:
            self.trainer.ask_to_end()
        value = self.trainer.storage.latest()["dot"][0]
        self.told.append((self.trainer.iter, value, self.trainer.model.weight[0].item()))


def run(folder, told, end_at=None, max_iter=6, period=2, stop_signal_at=None):
    trainer = trainer_of(forever([image(1, 0)]))
    checkpointer = StrictCheckpointer(trainer.model, str(folder), trainer=trainer)

    class Signal(HookBase):
        def before_step(self):
            if self.trainer.iter == stop_signal_at:
                self.trainer.ask_to_end()

    trainer.register_hooks([Signal(), Checkpoints(checkpointer, period), Tell(told, end_at)])
    start = 0
    if checkpointer.has_checkpoint():
        checkpointer.load(checkpointer.get_checkpoint_file())
        start = trainer.iter + 1
    trainer.train(start, max_iter)
    return trainer


def test_what_follows_a_checkpoint_is_told_again_after_resuming(tmp_path):
    whole, parts = [], []
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    run(tmp_path / "whole", whole)
    # Saved at iteration 3 and ended in the hooks after it, before anything was told of that iteration.
    with pytest.raises(Preempted):
        run(tmp_path / "parts", parts, end_at=3)
    assert [iteration for iteration, *_ in parts] == [0, 1, 2]
    run(tmp_path / "parts", parts)
    assert parts == whole
    assert len(whole) == 6


def test_a_signal_in_an_iteration_ends_the_run_after_it_with_a_checkpoint(tmp_path):
    told = []
    with pytest.raises(Preempted):
        run(tmp_path, told, stop_signal_at=2)
    assert [iteration for iteration, *_ in told] == [0, 1]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert run(tmp_path, told).model.weight.tolist() == [-6, 0]
