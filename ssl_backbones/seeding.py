"""Random numbers that depend on where in a run they are drawn, and on nothing that ran before."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

import numpy as np
import torch
from torch.overrides import TorchFunctionMode


def seed_everything(*place: int) -> None:
    """Seed Python's, NumPy's and torch's generators by the whole numbers that name a place in the run.

    For example (seed, iteration, slot) or (seed, position). Different places give unrelated streams.
    """
    # The count keeps (5,) apart from (5, 0): SeedSequence pads with zeros.
    entropy = [len(place), *(number % 2**64 for number in place)]
    words = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    seed = (int(words[2]) << 32) | int(words[3])
    # torch.manual_seed does the same and takes a hundred times as long where there is no GPU.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class SeededByDraw(TorchFunctionMode):
    """While it is on, torch's n-th drawing of initial weights depends on the place and on n alone.

    Two networks of one structure and other widths then differ where a width does, and nowhere behind it.
    """

    def __init__(self, *place: int):
        super().__init__()
        self.place, self.drawn = place, 0

    def __torch_function__(
        self, func: Callable, types: object, args: Sequence = (), kwargs: Mapping | None = None
    ) -> object:
        name = getattr(func, "__name__", "")
        # In place, as nn.init and its kin, or a new tensor; that some draw nothing does no harm.
        if (name.endswith("_") and not name.endswith("__")) or name.startswith(("rand", "normal")):
            seed_everything(*self.place, self.drawn)
            self.drawn += 1
        return func(*args, **(kwargs or {}))


def place_of(name: str) -> int:
    """A whole number for a place that has a name."""
    return crc32(name.encode())
