"""Masks encoded without being pasted, against Detectron2's pasting and pycocotools: the same strings."""

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from ssl_backbones.fast.evaluation import rle as mask_rle
from ssl_backbones.fast.evaluation.rle import encode_roi_masks
from ssl_backbones.fast.evaluation.rle_kernels import sample

KINDS = {
    "smooth": lambda draw, size: smooth(draw, size),
    "noise": lambda draw, size: draw.random((size, size)),
    # Values at the threshold and jumps: every rounding shows.
    "levels": lambda draw, size: draw.integers(0, 3, (size, size)) / 2,
    "threshold": lambda draw, size: np.full((size, size), 0.5),
    "full": lambda draw, size: np.ones((size, size)),
    "empty": lambda draw, size: np.zeros((size, size)),
    "no number": lambda draw, size: np.where(draw.random((size, size)) < 0.1, np.nan, 0.7),
    "beyond one": lambda draw, size: draw.normal(0, 1e4, (size, size)),
}
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def smooth(draw, size):
    y, x = np.mgrid[:size, :size] / (size - 1) - draw.uniform(0.3, 0.7, (2, 1, 1))
    return 1 / (1 + np.exp((np.hypot(x, y) - draw.uniform(0.2, 0.6)) * 12))


@st.composite
def boxes(draw):
    """A box in or partly outside an image, some on whole pixels; and the image's height and width."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    digits = draw(st.sampled_from([0, 3]))
    low = [draw(st.floats(-5, side - 0.6)) for side in (width, height)]
    sides = [draw(st.floats(0.5, 100)) for _ in range(2)]
    box = np.round([*low, *np.add(low, sides)], digits).clip(0, [width, height] * 2)
    box[2:] = np.maximum(box[2:], box[:2] + 0.5)
    return box, height, width


def pasted(masks, boxes, height, width):
    images = paste_masks_in_image(masks, boxes, (height, width)).numpy().astype(np.uint8)
    return [mask_util.encode(np.asfortranarray(image))["counts"].decode() for image in images]


@given(
    box=boxes(),
    kind=st.sampled_from(sorted(KINDS)),
    size=st.sampled_from([7, 14, 28]),
    seed=st.integers(0, 100),
)
# The whole image: runs go on from column to column, to its very end.
@example(box=(np.array([0.0, 0, 9, 9]), 9, 9), kind="full", size=28, seed=0)
@FEW
def test_strings_are_those_of_pasted_masks(box, kind, size, seed):
    box, height, width = box
    mask = torch.from_numpy(KINDS[kind](np.random.default_rng(seed), size)).float()
    masks, boxes = torch.stack([mask, mask.T]), torch.tensor(np.stack([box, box])).float()
    assert encode_roi_masks(masks, boxes, height, width) == pasted(masks, boxes, height, width)


def test_many_masks_of_a_large_image():
    draw = np.random.default_rng(0)
    masks = torch.from_numpy(np.stack([smooth(draw, 28) for _ in range(30)])).float()
    low = torch.from_numpy(draw.uniform(0, 300, (30, 2))).float()
    boxes = torch.cat([low, low + torch.from_numpy(draw.uniform(5, 300, (30, 2)))], dim=1).float()
    found = encode_roi_masks(masks, boxes, 480, 640)
    assert found == pasted(masks, boxes, 480, 640)
    assert len(set(found)) == 30


def test_no_masks():
    assert encode_roi_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 5, 6) == []


def test_long_runs():
    # So high that the corners, where a mask fades out, belong to it as well.
    mask, box = torch.full((1, 28, 28), 1000.0), torch.tensor([[0.0, 0.0, 4000.0, 3000.0]])
    rle = mask_util.frPyObjects({"size": [3000, 4000], "counts": [0, 12_000_000]}, 3000, 4000)
    assert encode_roi_masks(mask, box, 3000, 4000) == [rle["counts"].decode()]


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_other_numbers_are_left_to_detectron2(kind):
    assert encode_roi_masks(torch.ones(1, 28, 28, dtype=kind), torch.ones(1, 4), 9, 9) is None


def test_so_is_everything_without_numba(monkeypatch):
    monkeypatch.setattr(mask_rle, "numba_or_none", lambda purpose: None)
    assert encode_roi_masks(torch.ones(1, 28, 28), torch.ones(1, 4), 9, 9) is None


def test_so_are_masks_that_are_not_square():
    assert encode_roi_masks(torch.ones(1, 28, 14), torch.ones(1, 4), 9, 9) is None


def test_so_is_a_processor_on_which_torch_rounds_otherwise(monkeypatch):
    monkeypatch.setattr(mask_rle, "_grid_sample", lambda mask, x, y: x)
    monkeypatch.setattr(
        mask_rle, "_adds_while_multiplying", mask_rle._adds_while_multiplying.__wrapped__
    )
    assert encode_roi_masks(torch.ones(1, 28, 28), torch.ones(1, 4), 9, 9) is None


@pytest.mark.parametrize("fused", [False, True])
def test_a_value_is_rounded_as_the_processor_does(fused):
    # A third everywhere, at (0.3, 0.5) between four cells: by hand, in torch's order.
    x, y = np.float32([-0.2]), np.float32([0])
    way, half = x[0] + np.float32(0.5), np.float32(0.5)
    third = np.float32(1 / 3)
    weights = [(1 - way) * half, way * half] * 2
    expected = third * weights[0]
    for weight in weights[1:]:
        # Exact in float64: one rounding.
        once = np.float32(float(expected) + float(third) * float(weight))
        expected = once if fused else expected + third * weight
    found = sample(np.full((2, 2), third), x, y, fused)
    assert found.dtype == np.float32 and found.tolist() == [expected]
