"""The detections of an evaluation in flat arrays, a fraction of the memory of COCO's dicts."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..acceleration import numba_or_none


class Irregular(Exception):
    """Something is not as arrays can hold it: the slower, general code is to take it."""


class Strings(NamedTuple):
    """Compressed RLE of masks.

    Attributes:
        characters: of all strings, uint8.
        spans: N x 2, where the characters of each begin and end.
        sizes: N x 2, height and width of each mask's image.
    """

    characters: np.ndarray
    spans: np.ndarray
    sizes: np.ndarray

    @classmethod
    def pack(cls, rles: Sequence[dict]) -> Strings:
        """From dicts with `size` and `counts`.

        Raises:
            Irregular: one of them is a polygon, or not compressed.
        """
        try:
            counts = _column(rles, "counts")
            sizes = _rows(_column(rles, "size"), 2, np.int64)
            joined = _joined(counts)
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise Irregular(str(error)) from error
        ends = np.cumsum([0, *map(len, counts)])
        spans = np.stack([ends[:-1], ends[1:]], axis=1)
        return cls(np.frombuffer(joined, np.uint8), spans, sizes)

    def part(self, start: int, stop: int) -> Strings:
        """Those from `start` on and before `stop`."""
        spans = self.spans[start:stop]
        begin, end = spans.min(initial=len(self.characters)), spans.max(initial=0)
        return Strings(self.characters[begin:end], spans - begin, self.sizes[start:stop])

    def rles(self) -> Iterator[dict]:
        """The dicts that they came from."""
        text = self.characters.tobytes().decode("ascii")
        starts, ends = self.spans.T.tolist()
        for start, end, size in zip(starts, ends, self.sizes.tolist(), strict=True):
            yield {"size": size, "counts": text[start:end]}


class Detections(NamedTuple):
    """COCO results, column by column.

    Attributes:
        image_ids: of the N detections, whatever the dataset takes for ids.
        category_ids: integers.
        boxes: N x 4 (x, y, width, height), float64; None if there are none.
        scores: float64.
        masks: None if there are none.
    """

    image_ids: list
    category_ids: np.ndarray
    boxes: np.ndarray | None
    scores: np.ndarray
    masks: Strings | None

    @classmethod
    def pack(
        cls, results: Sequence[dict[str, Any]], tasks: Sequence[str] = ("bbox", "segm")
    ) -> Detections:
        """From COCO's list of results.

        Args:
            tasks: leave out boxes or masks, even if there are some, by leaving out "bbox" or "segm".

        Raises:
            Irregular: they have keypoints, only some have boxes or masks, or numbers are none.
        """
        keys = results[0].keys() if results else {"bbox"}
        if "keypoints" in keys or set(map(len, results)) - {len(keys)}:
            raise Irregular("detections have keypoints, or some have more than others")
        boxes = masks = None
        try:
            if "bbox" in keys and "bbox" in tasks:
                boxes = _rows(_column(results, "bbox"), 4, np.float64)
            if "segmentation" in keys and "segm" in tasks:
                masks = Strings.pack(_column(results, "segmentation"))
            image_ids = _column(results, "image_id")
            category_ids = np.array(_column(results, "category_id"))
            scores = np.array(_column(results, "score"))
        except (KeyError, TypeError, ValueError) as error:
            raise Irregular(str(error)) from error
        if len(results) and (category_ids.dtype.kind != "i" or scores.dtype.kind not in "fi"):
            raise Irregular("categories are no integers, or scores no numbers")
        return cls(
            image_ids, category_ids.astype(np.int64), boxes, scores.astype(np.float64), masks
        )

    def part(self, start: int, stop: int) -> Detections:
        """Those from `start` on and before `stop`."""
        return Detections(
            self.image_ids[start:stop],
            self.category_ids[start:stop],
            None if self.boxes is None else self.boxes[start:stop],
            self.scores[start:stop],
            None if self.masks is None else self.masks.part(start, stop),
        )

    def results(self) -> Iterator[dict[str, Any]]:
        """COCO's results, as Detectron2 makes them."""
        # A thousand at a time: as Python's objects they take many times the memory.
        for start in range(0, len(self.image_ids), 1000):
            yield from self.part(start, start + 1000)._results()

    def _results(self) -> Iterator[dict[str, Any]]:
        columns = {"image_id": self.image_ids, "category_id": self.category_ids.tolist()}
        if self.boxes is not None:
            columns["bbox"] = self.boxes.tolist()
        columns["score"] = self.scores.tolist()
        if self.masks is not None:
            columns["segmentation"] = self.masks.rles()
        for row in zip(*columns.values(), strict=True):
            yield dict(zip(columns, row, strict=True))

    def __bool__(self) -> bool:
        return bool(self.image_ids)


def concatenate(parts: Sequence[Detections]) -> Detections:
    """All detections as one, in their order.

    Raises:
        Irregular: only some have boxes or masks.
    """
    parts = [part for part in parts if part] or list(parts[:1]) or [Detections.pack([])]
    image_ids = list(itertools.chain.from_iterable(part.image_ids for part in parts))
    return Detections(
        image_ids,
        np.concatenate([part.category_ids for part in parts]),
        np.concatenate(boxes) if (boxes := _all_or_none([p.boxes for p in parts])) else None,
        np.concatenate([part.scores for part in parts]),
        _concatenated(masks) if (masks := _all_or_none([p.masks for p in parts])) else None,
    )


def _concatenated(masks: Sequence[Strings]) -> Strings:
    starts = np.cumsum([0, *(len(part.characters) for part in masks)])
    characters = np.concatenate([part.characters for part in masks])
    # As `pack` leaves them: for arrays that can be written to, a kernel would be compiled once more.
    characters.flags.writeable = False
    return Strings(
        characters,
        np.concatenate([part.spans + start for part, start in zip(masks, starts, strict=False)]),
        np.concatenate([part.sizes for part in masks]),
    )


def _all_or_none(columns: list) -> list | None:
    missing = sum(column is None for column in columns)
    if 0 < missing < len(columns):
        raise Irregular("only some detections have boxes, or masks")
    return None if missing else columns


def _column(rows: Sequence[dict], name: str) -> list:
    return list(map(operator.itemgetter(name), rows))


def _rows(rows: Sequence[Sequence], width: int, kind: type) -> np.ndarray:
    if set(map(len, rows)) - {width}:
        raise ValueError(f"a box or a size has not {width} numbers")
    flat = np.fromiter(itertools.chain.from_iterable(rows), kind, width * len(rows))
    return flat.reshape(-1, width)


def _joined(counts: list[str | bytes]) -> bytes:
    try:
        return "".join(counts).encode("ascii")
    except TypeError:
        # Of masks that it has compared, pycocotools leaves bytes.
        return b"".join(one if isinstance(one, bytes) else one.encode("ascii") for one in counts)


MOST_PIXELS = 2**32 - 1
"""Of a mask: pycocotools counts them in 32 bits."""


def first_damaged(masks: Strings, empty_runs: bool = True) -> int | None:
    """The place of the first mask whose runs do not fill its image; None if all do.

    Args:
        empty_runs: whether a run of no pixels may stand elsewhere than at the beginning. It changes no
            pixel, and pycocotools compares such masks in a way of its own.
    """
    pixels = masks.sizes.prod(axis=1)
    pixels[(masks.sizes < 1).any(axis=1) | (pixels > MOST_PIXELS)] = -1
    if numba_or_none("Checking masks"):
        # Signed: numba makes floats of unsigned numbers from which others are taken.
        place = _compiled()(masks.characters.view(np.int8), masks.spans, pixels, empty_runs)
    else:
        spans, pixels = masks.spans.tolist(), pixels.tolist()
        place = _first_damaged(masks.characters.tobytes(), spans, pixels, empty_runs)
    return None if place < 0 else int(place)


@functools.cache
def _compiled() -> Callable:
    import numba

    return numba.njit(cache=True, nogil=True)(_first_damaged)


def _first_damaged(characters, spans, pixels, empty_runs):
    """The place of the first string that does not encode as many pixels, or -1; numba compiles it."""
    for place in range(len(spans)):
        number, shift = 0, 0
        before, last, written, total = 0, 0, 0, 0
        is_whole = True
        for index in range(spans[place][0], spans[place][1]):
            bits = int(characters[index]) - 48
            # A difference of two runs has 33 bits with its sign, and a character holds five.
            if bits < 0 or bits > 63 or shift >= 35:
                is_whole = False
                break
            number |= (bits & 31) << shift
            shift += 5
            if bits & 32:
                continue
            if bits & 16:
                number |= -1 << shift
            # From the fourth on, a number is the difference to the run before the last.
            if written > 2:
                number += before
            if number < 0 or number > pixels[place]:
                is_whole = False
                break
            if number == 0 and written > 0 and not empty_runs:
                is_whole = False
                break
            before, last = last, number
            total += number
            written += 1
            number, shift = 0, 0
        if not is_whole or shift or total != pixels[place]:
            return place
    return -1
