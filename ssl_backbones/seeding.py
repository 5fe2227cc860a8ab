"""Random numbers that depend on where in a run they are drawn, and on nothing that ran before."""

from __future__ import annotations

import random

import numpy as np
import torch


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
