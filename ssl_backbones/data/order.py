"""Which image goes to which micro-batch of which process: one order for the whole run, the same for all.

    stream of positions ──▶ (two waiting buckets, by shape) ──▶ groups ──▶ iterations of S slots

A stream gives the dataset index of every position, as Detectron2's samplers do before they deal it out to
processes. Positions are gathered into groups of `batch_size`; group g goes to iteration g // S, slot
g % S, where S is the number of processes times that of the micro-batches in each, and the slots of a
process lie side by side.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Sample = tuple[int, int]
"""A position in the global order and the dataset index that stands there."""


@dataclass(frozen=True)
class Progress:
    """How far an order has been used up: what a checkpoint needs to go on from there.

    `position` is the first one that was never drawn; `waiting` are earlier samples that were drawn and
    still wait for others of their shape, by position.
    """

    position: int = 0
    waiting: tuple[Sample, ...] = ()


class GlobalOrder:
    """The infinite order of a run.

    Every process plans the whole of it, which costs microseconds, and takes its own slots: so nothing has
    to be exchanged, and another number of processes goes on where the last one stopped.

    Args:
        indices: starts the stream of dataset indices from position 0; the same one at each call.
        batch_size: images in a micro-batch.
        slots: micro-batches in an iteration, all processes together.
        is_landscape: by dataset index, whether the image is wider than high; images that differ in this
            never share a micro-batch (Detectron2's aspect-ratio grouping). None: no grouping.
    """

    def __init__(
        self,
        indices: Callable[[], Iterator[int]],
        *,
        batch_size: int,
        slots: int,
        is_landscape: Sequence[bool] | None = None,
    ):
        self.batch_size = batch_size
        self.slots = slots
        self._indices = indices
        self._is_landscape = is_landscape

    def groups(self, start: Progress) -> Iterator[tuple[list[Sample], Progress]]:
        """Yield the micro-batches after `start`, each with the progress that it makes."""
        position = start.position
        # Skipping draws and drops: 0.35 s for ten million positions of a TrainingSampler.
        stream = itertools.islice(self._indices(), position, None)
        # Those that waited come first. There may be enough for several groups, where micro-batches were
        # larger before.
        waiting = deque(start.waiting)
        buckets: tuple[list[Sample], list[Sample]] = ([], [])
        while True:
            if waiting:
                sample = waiting.popleft()
            else:
                sample = (position, next(stream))
                position += 1
            bucket = buckets[int(self._is_landscape is not None and self._is_landscape[sample[1]])]
            bucket.append(sample)
            if len(bucket) == self.batch_size:
                group = bucket.copy()
                bucket.clear()
                left = sorted(itertools.chain(*buckets, waiting))
                yield group, Progress(position, tuple(left))

    def iterations(self, start: Progress) -> Iterator[tuple[list[list[Sample]], Progress]]:
        """Yield, for each iteration after `start`, one group for each slot, and the progress made."""
        groups = self.groups(start)
        while True:
            chunk = list(itertools.islice(groups, self.slots))
            yield [group for group, _ in chunk], chunk[-1][1]

    def of_process(
        self, start: Progress, rank: int, accumulate: int
    ) -> Iterator[tuple[list[Sample], Progress | None]]:
        """Yield the micro-batches of process `rank`, which takes `accumulate` of them in an iteration.

        The last one of each iteration comes with the progress that the iteration makes, the others with
        None.
        """
        first = rank * accumulate
        for groups, progress in self.iterations(start):
            mine = groups[first : first + accumulate]
            for group in mine[:-1]:
                yield group, None
            yield mine[-1], progress
