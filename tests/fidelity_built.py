"""What a config comes to once it is built: the norms, what is frozen, and the optimizer's numbers."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.solver import LRMultiplier
from omegaconf import DictConfig
from torch import nn

from ssl_backbones.engine.schedule import lr_multiplier
from ssl_backbones.errors import InputError
from ssl_backbones.fidelity.rows import BUILT
from ssl_backbones.modeling.freezing import count_parameters, parts

_KINDS = ("weight", "bias", "norm", "scale")
_SETTINGS = ("eps", "momentum")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, FrozenBatchNorm2d)


class Built:
    """The parts of one config, each built when it is first asked for.

    Keys (after `built.`):
        norms: class of the norm layers of each part of the model that has any ("res2": "SyncBatchNorm").
        norm_settings.eps, .momentum: of the norm layers; the momentum is None where no running statistics
            are updated, as in FrozenBatchNorm2d.
        frozen: the parts that do not train at all.
        learning_rate.N: the optimizer's in iteration N, from 0.
        weight_decay.weight, .bias, .norm, .scale: of weights, of biases outside of norms, of the norms'
            parameters, of other scales of single channels; None where none train, a list of several.
    """

    def __init__(self, cfg: DictConfig):
        self._cfg = copy.deepcopy(cfg)  # the schedule is put into it

    def value(self, key: str) -> Any:
        """The value of `built.KEY`.

        Raises:
            InputError: there is no such key.
        """
        kind, _, rest = key.removeprefix(BUILT).partition(".")
        if kind == "learning_rate" and rest.isdigit():
            return self._learning_rate(int(rest))
        if kind == "weight_decay" and rest in _KINDS:
            return self._weight_decays[rest]
        if kind == "norm_settings" and rest in _SETTINGS:
            return self._norm_setting(rest)
        if kind in ("norms", "frozen") and not rest:
            return self._norms() if kind == "norms" else self._frozen()
        raise InputError(f"nothing is known of {key}")

    @cached_property
    def _model(self) -> nn.Module:
        return instantiate(self._cfg.model)

    def _norms(self) -> dict[str, str]:
        found = {
            name: sorted({type(m).__name__ for m in part.modules() if isinstance(m, _NORMS)})
            for name, part in parts(self._model)
        }
        return {name: " and ".join(kinds) for name, kinds in found.items() if kinds}

    def _norm_setting(self, name: str) -> Any:
        layers = (m for m in self._model.modules() if isinstance(m, _NORMS))
        return _only({getattr(layer, name) for layer in layers if hasattr(layer, name)})

    def _frozen(self) -> list[str]:
        counts = {name: count_parameters(part) for name, part in parts(self._model)}
        return [name for name, (frozen, trainable) in counts.items() if frozen and not trainable]

    @cached_property
    def _scheduler(self) -> LRMultiplier:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=self._cfg.optimizer.lr)
        return LRMultiplier(optimizer, lr_multiplier(self._cfg), self._cfg.train.max_iter)

    def _learning_rate(self, iteration: int) -> float:
        self._scheduler.last_epoch = iteration
        # Without the last digits of products that are no binary fractions.
        return float(f"{self._scheduler.get_lr()[0]:.10g}")

    @cached_property
    def _weight_decays(self) -> dict[str, Any]:
        settings = self._cfg.optimizer.copy()
        settings.params.model = self._model
        decay = {
            parameter: group["weight_decay"]
            for group in instantiate(settings).param_groups
            for parameter in group["params"]
        }
        norms = [m for m in self._model.modules() if isinstance(m, _NORMS)]
        of_norms = {p for m in norms for p in m.parameters()}
        kinds: dict[str, set[float]] = {kind: set() for kind in _KINDS}
        for name, parameter in self._model.named_parameters():
            if parameter in decay:
                last = name.rpartition(".")[2]
                kind = "weight" if parameter.ndim > 1 else "bias" if last == "bias" else "scale"
                kinds["norm" if parameter in of_norms else kind].add(decay[parameter])
        return {kind: _only(values) for kind, values in kinds.items()}


def _only(values: set[Any]) -> Any:
    """The one value, None where there is none, a list of several."""
    return next(iter(values), None) if len(values) < 2 else sorted(values, key=str)
