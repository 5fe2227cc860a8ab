"""The training loop: what happens in an iteration, what a checkpoint keeps of it, and how it ends early."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from ..errors import InputError
from ..seeding import seed_everything
from .launching.agreement import in_any_rank


class NonFiniteError(Exception):
    """A loss or the gradients are infinite or NaN; raised on every rank before the optimizer's step.

    Attributes:
        iteration: the iteration that was not completed.
        ranks: for each rank its "losses" (term to value, mean of its micro-batches), the model's
            "complaint" if it stopped before there were any, and the "files" of its images.
        grad_norm: L2 norm of all gradients.
    """

    def __init__(self, iteration: int, ranks: list[dict[str, Any]], grad_norm: float):
        self.iteration, self.ranks, self.grad_norm = iteration, ranks, grad_norm
        super().__init__(self._message())

    def _message(self) -> str:
        found = []
        for rank, report in enumerate(self.ranks):
            bad = [f"{k}={v}" for k, v in report["losses"].items() if not math.isfinite(v)]
            if report["complaint"]:
                bad.append(report["complaint"].rstrip("."))
            if bad:
                found.append(f"rank {rank}: {', '.join(bad)} on {', '.join(report['files'])}")
        if not found:
            files = (name for report in self.ranks for name in report["files"])
            found = [f"gradient norm {self.grad_norm} on {', '.join(files)}"]
        return f"not finite at iteration {self.iteration}: {'; '.join(found)}"


def describe(
    batches: list, losses: Mapping[str, torch.Tensor], complaint: str = ""
) -> dict[str, Any]:
    """A rank's part of `NonFiniteError.ranks`."""
    images = [image for batch in batches for image in batch if isinstance(image, Mapping)]
    return {
        "losses": {name: value.item() for name, value in losses.items()},
        "complaint": complaint,
        "files": [str(image.get("file_name")) for image in images],
    }


class Preempted(Exception):
    """The run was asked to end (SIGTERM, SIGUSR1) and everything it needs to go on is saved."""


class Trainer(TrainerBase):
    """Detectron2's trainer with an exact account of its state.

    Every iteration takes `accumulate` micro-batches from `data_loader`, averages their gradients (over the
    ranks as well), and makes one step of the optimizer. The model's own random numbers are seeded by (seed,
    iteration, slot), where slot = rank * accumulate + micro-batch: K micro-batches of one process are the
    batches of K processes. Losses, averaged over micro-batches and ranks, go to the event storage of every
    rank, unsmoothed.

    Args:
        model: takes what the loader yields, returns a dict of losses (or one loss).
        data_loader: an iterable of micro-batches; resumed exactly if it has `state_dict`.
        optimizer: its learning rate is set by a hook.
        accumulate: micro-batches to one step.
        amp_dtype: torch.float16 (with loss scaling) or torch.bfloat16; None computes in float32.
        clip_norm: largest L2 norm of all gradients together.
        clip_value: largest magnitude of a gradient's element.
        seed: of the random numbers inside the model.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        amp_dtype: torch.dtype | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        model.train()
        self.model, self.data_loader, self.optimizer = model, data_loader, optimizer
        self.accumulate, self.amp_dtype, self.seed = accumulate, amp_dtype, seed
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self._device = next(model.parameters()).device.type
        is_half = amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self._device) if is_half else None
        self.batches: list = []
        self.stop: str | None = None
        self.preempted = False
        self._wanted = False
        self._saved = False
        self._batch_iterator = None
        self._pending: dict[str, tuple[float, bool]] | None = None

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from `start_iter` until `max_iter`, or until a hook has set `stop`.

        After a checkpoint was loaded, what followed the saving in that iteration is done first.

        Raises:
            NonFiniteError: before the step that would have spoilt the weights.
            Preempted: after everything was saved.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                self._finish_iteration()
                while self.iter < max_iter and not self.stop:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            finally:
                # As in Detectron2: hooks close what they opened, and see by `iter` whether all went well.
                self.after_train()

    def before_step(self) -> None:
        self._saved = False
        super().before_step()

    def run_step(self) -> None:
        """One iteration: forward and backward of each micro-batch, the checks, the optimizer's step."""
        assert self.model.training, "[Trainer] model was changed to eval mode!"
        self.optimizer.zero_grad()
        self.batches, losses, data_time = [], [], 0.0
        for micro in range(self.accumulate):
            start = time.perf_counter()
            self.batches.append(next(self._batches))
            data_time += time.perf_counter() - start
            losses.append(self._forward_and_backward(self.batches[-1], micro))
        if self.grad_scaler:
            self.grad_scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        self._record(losses, norm, data_time)
        if self.clip_norm is not None:
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            clip_grads_with_norm_(parameters, self.clip_norm, norm)
        if self.clip_value is not None:
            clip_grad_value_(self.model.parameters(), self.clip_value)
        if self.grad_scaler:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self.optimizer.step()

    def _forward_and_backward(self, batch, micro: int) -> dict[str, torch.Tensor]:
        """Add the gradients of one micro-batch; returns its losses, each divided by `accumulate`."""
        is_last = micro == self.accumulate - 1
        slot = comm.get_rank() * self.accumulate + micro
        seed_everything(self.seed, self.iter, slot)
        # Gradients are summed over the processes once an iteration.
        with nullcontext() if is_last or comm.get_world_size() == 1 else self.model.no_sync():
            losses = self._forward(batch)
            total = sum(losses.values())
            (self.grad_scaler.scale(total) if self.grad_scaler else total).backward()
        return {name: loss.detach().float() for name, loss in losses.items()}

    def _forward(self, batch) -> dict[str, torch.Tensor]:
        losses, complaint = {}, ""
        try:
            with self._autocast():
                losses = self.model(batch)
        except FloatingPointError as error:
            # Detectron2's way to say that predictions are not finite, of which no loss can be made.
            complaint = str(error)
        # Before the backward pass, in which a rank would wait for the gradients of one that has failed.
        if in_any_rank(bool(complaint)):
            reports = comm.all_gather(describe(self.batches, {}, complaint))
            raise NonFiniteError(self.iter, reports, math.nan)
        if isinstance(losses, torch.Tensor):
            losses = {"total_loss": losses}
        return {name: loss / self.accumulate for name, loss in losses.items()}

    def _autocast(self):
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self._device, dtype=self.amp_dtype)

    def _record(self, losses: list[dict[str, torch.Tensor]], norm, data_time: float) -> None:
        """Average over the ranks, learn whether any was asked to end, stop all if anything is not finite."""
        own = {name: sum(micro[name] for micro in losses) for name in losses[0]}
        flags = torch.tensor([data_time, float(self._wanted)], device=norm.device)
        values = torch.cat([torch.stack([*own.values(), norm.float()]), flags])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(values)
            values /= comm.get_world_size()
        *means, norm_mean, data_time, wanted = values.tolist()
        self.preempted = wanted > 0
        # With loss scaling an infinite gradient is part of the search for a scale: that step is left out.
        overflow = self.grad_scaler is not None and self.grad_scaler.get_scale() >= 1
        checked = means if overflow else [*means, norm_mean]
        if not all(map(math.isfinite, checked)):
            raise NonFiniteError(self.iter, comm.all_gather(describe(self.batches, own)), norm_mean)
        self.storage.put_scalars(**dict(zip(own, means, strict=True)))
        if "total_loss" not in own:
            self.storage.put_scalar("total_loss", sum(means))
        self.storage.put_scalar("grad_norm", norm_mean)
        self.storage.put_scalar("data_time", data_time)

    @property
    def _batches(self):
        # Made at the first use, after a checkpoint may have set where the loader begins.
        if self._batch_iterator is None:
            self._batch_iterator = iter(self.data_loader)
        return self._batch_iterator

    def ask_to_end(self) -> None:
        """Called by a signal: end after this iteration, or at once where everything is saved already."""
        self._wanted = True
        if self._saved:
            raise Preempted

    def mark_saved(self) -> None:
        """Called by the hook that saves: until the next iteration begins there is nothing to lose."""
        self._saved = True
        if in_any_rank(self._wanted or self.preempted):
            raise Preempted

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["pending"] = self._scalars() if hasattr(self, "storage") else {}
        state["seed"] = self.seed
        state["optimizer"] = self.optimizer.state_dict()
        if self.grad_scaler:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        if hasattr(self.data_loader, "state_dict"):
            state["data"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise InputError(
                f"the checkpoint's optimizer does not fit: {error}; resume with the config of the run, in "
                "which the same parameters train"
            ) from error
        self.seed = state.get("seed", self.seed)
        self._pending = state.get("pending")
        if self.grad_scaler and "grad_scaler" in state:
            self.grad_scaler.load_state_dict(state["grad_scaler"])
        if "data" in state and hasattr(self.data_loader, "load_state_dict"):
            self.data_loader.load_state_dict(state["data"])

    def _scalars(self) -> dict[str, tuple[float, bool]]:
        """What was put into the storage in this iteration, with Detectron2's smoothing hints."""
        hints = self.storage.smoothing_hints()
        latest = self.storage.latest().items()
        return {name: (value, hints[name]) for name, (value, at) in latest if at == self.iter}

    def _finish_iteration(self) -> None:
        """Do again what comes after the saving in the iteration of the checkpoint: evaluation, reports."""
        if self._pending is None:
            return
        self.iter -= 1
        self.storage.iter = self.iter
        self._saved = True
        for name, (value, hint) in self._pending.items():
            self.storage.put_scalar(name, value, smoothing_hint=hint)
        self._pending = None
        saving = [n for n, hook in enumerate(self._hooks) if getattr(hook, "saves", False)]
        for hook in self._hooks[saving[-1] + 1 :] if saving else ():
            hook.after_step()
        self.iter += 1
