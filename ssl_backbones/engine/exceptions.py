"""How a training ends before its time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch


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
