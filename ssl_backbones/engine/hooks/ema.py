"""An exponential moving average of the weights, kept beside them and evaluated beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import nn


class WeightAverage:
    """average = decay * average + (1 - decay) * weights, at each `update`.

    Running statistics are averaged as well, whole numbers copied. The first updates use the smaller decay
    (1 + n) / (10 + n) of the n-th, so that the average of a short run is not its random start: the rule of
    TensorFlow's ExponentialMovingAverage with `num_updates`.

    Args:
        model: not wrapped for several processes; each rank keeps the same average.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._model, self._decay = model, decay
        self.restart()

    def restart(self) -> None:
        """Begin at the model's present weights."""
        self._updates = 0
        self._average = {key: tensor.clone() for key, tensor in self._model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for key, tensor in self._model.state_dict().items():
            if tensor.is_floating_point():
                self._average[key].lerp_(tensor, 1 - decay)
            else:
                self._average[key].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the `with` block and its own again after it."""
        own = {key: tensor.clone() for key, tensor in self._model.state_dict().items()}
        self._model.load_state_dict(self._average)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self._average, "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = {key: tensor.device for key, tensor in self._average.items()}
        self._average = {key: state["model"][key].to(where) for key, where in device.items()}
        self._updates = state["updates"]


class EMA(HookBase):
    """Updates a `WeightAverage` after each step; a checkpoint holds the average as "ema"."""

    def __init__(self, average: WeightAverage):
        self._average = average

    def after_step(self) -> None:
        self._average.update()
