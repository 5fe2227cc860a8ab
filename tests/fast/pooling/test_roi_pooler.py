"""FastROIPooler beside Detectron2's ROIPooler, and both beside float64."""

import warnings

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, RotatedBoxes
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_backbones.fast.acceleration import WITHOUT, numba_or_none, optional
from ssl_backbones.fast.pooling.roi_pooler import FastROIPooler, _ROIAlign

OPTIONS = dict(output_size=4, scales=(1 / 4, 1 / 8), sampling_ratio=0, pooler_type="ROIAlignV2")
SIZES = ((24, 32), (12, 16))
CHANNELS = 70  # more than one block, and no multiple of it


@pytest.fixture
def fast_only(monkeypatch):
    """Whatever falls back to the stock pooler fails."""
    if numba_or_none("Testing") is None:
        pytest.skip("without numba")

    def forward(self, x, box_lists):
        raise AssertionError("fell back")

    monkeypatch.setattr(ROIPooler, "forward", forward)


def features(images=2, channels=CHANNELS, seed=0, sizes=SIZES):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, channels, *size, generator=generator) for size in sizes]


def both(x, box_lists, **changes):
    """Output and gradients of the stock pooler, then of ours."""
    options = {**OPTIONS, **changes}
    return [outcome(kind(**options), x, box_lists) for kind in (ROIPooler, FastROIPooler)]


def outcome(pooler, x, box_lists):
    x = [tensor.detach().requires_grad_() for tensor in x]
    output = pooler(x, box_lists)
    # Any loss that weights the elements unequally.
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    gradients = torch.autograd.grad(output, x, weights.to(output.dtype), allow_unused=True)
    return output.detach(), *gradients


def assert_alike(stock, ours):
    for expected, found in zip(stock, ours, strict=True):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.stride() == expected.stride()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


BOXES = {
    "usual": [[4.3, 5.1, 60.2, 70.7], [10.0, 10.0, 31.5, 20.25], [0.0, 0.0, 128.0, 96.0]],
    "outside": [
        [-50.0, -40.0, 20.0, 30.0],
        [100.0, 80.0, 300.0, 400.0],
        [500.0, 500.0, 540.0, 560.0],
    ],
    "around everything": [[-300.0, -300.0, 600.0, 600.0]],
    "at the border": [[124.0, 92.0, 128.0, 96.0], [0.0, 0.0, 1.0, 1.0], [126.0, 0.0, 132.0, 4.0]],
    "no area": [[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 40.0], [3.0, 8.0, 70.0, 8.0]],
    "slim": [[2.0, 10.0, 126.0, 10.5], [60.0, 1.0, 60.01, 95.0]],
    "none": [],
}


@pytest.mark.parametrize("pooler_type", ["ROIAlignV2", "ROIAlign"])
@pytest.mark.parametrize("name", BOXES)
def test_equals_the_stock_pooler(name, pooler_type):
    boxes = Boxes(torch.tensor(BOXES[name]).view(-1, 4))
    usual = Boxes(torch.tensor(BOXES["usual"]))
    # An image without instances stands beside it.
    assert_alike(*both(features(), [boxes, Boxes(torch.zeros(0, 4))], pooler_type=pooler_type))
    assert_alike(*both(features(), [usual, boxes], pooler_type=pooler_type))


span = st.tuples(st.floats(-100, 250, width=32), st.floats(-100, 250, width=32)).map(sorted)
box = st.tuples(span, span).map(lambda spans: [*zip(*spans, strict=True)])


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(box, max_size=8),
    images=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    bins=st.integers(1, 9),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    single=st.booleans(),
)
def test_equals_the_stock_pooler_for_any_shape(boxes, images, bins, height, width, single):
    lists = [[box for box, at in zip(boxes, images, strict=False) if at == n] for n in range(3)]
    lists = [Boxes(torch.tensor(own).view(-1, 4)) for own in lists]
    sizes = ((2 * height, 2 * width), (height, width))[: 1 if single else 2]
    scales = OPTIONS["scales"][: len(sizes)]
    x = features(images=3, channels=3, sizes=sizes)
    assert_alike(*both(x, lists, output_size=bins, scales=scales))


def test_gradients_are_nearer_to_float64_than_stock(fast_only, monkeypatch):
    """All numbers but the sums are exact: corners are multiples of 1/2, and bins have 1, 2 or 4 samples."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 200, (400, 2), generator=generator) / 2.0
    extents = torch.tensor([6.0, 12, 16, 26, 32, 52, 64])
    extents = extents[torch.randint(0, len(extents), (400, 2), generator=generator)]
    rois = torch.cat([corners, corners + extents], dim=1)
    rois = [Boxes(rois[n::2]) for n in range(2)]
    # Boxes of an area under 32 x 32 are pooled from the first level.
    options = dict(OPTIONS, canonical_box_size=32, canonical_level=3)
    x = features(channels=8)
    ours = outcome(FastROIPooler(**options), x, rois)
    monkeypatch.undo()
    stock = outcome(ROIPooler(**options), x, rois)
    exact = outcome(ROIPooler(**options), [tensor.double() for tensor in x], rois)

    def distances(found):
        return [(a - b).norm() / b.norm() for a, b in zip(found, exact, strict=True)]

    output, *gradients = distances(ours)
    assert output < 1e-7
    assert all(own < stock for own, stock in zip(gradients, distances(stock)[1:], strict=True))


def test_does_not_depend_on_the_number_of_threads(fast_only):
    threads = torch.get_num_threads()
    boxes = [Boxes(torch.tensor(BOXES["usual"] * 20))] * 2
    found = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(outcome(FastROIPooler(**OPTIONS), features(), boxes))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_works_after_a_fork(fast_only, forked):
    """Threads of the parent are not there in a loader's worker."""
    boxes = [Boxes(torch.tensor(BOXES["usual"]))] * 2
    FastROIPooler(**OPTIONS)(features(), boxes)
    (found,) = forked(1, lambda rank: float(FastROIPooler(**OPTIONS)(features(), boxes).sum()))
    assert found == pytest.approx(
        float(FastROIPooler(**OPTIONS)(features(), boxes).sum()), abs=1e-3
    )


def test_memory_formats_and_partial_gradients(fast_only, monkeypatch):
    boxes = [Boxes(torch.tensor(BOXES["usual"]))] * 2
    plain = features()
    strange = [
        plain[0].to(memory_format=torch.channels_last),
        plain[1].transpose(2, 3).contiguous(),
    ]
    strange[1] = strange[1].transpose(2, 3)
    pooler = FastROIPooler(**OPTIONS)
    assert torch.equal(pooler(plain, boxes), pooler(strange, boxes))

    x = [plain[0], plain[1].requires_grad_()]
    pooler(x, boxes).sum().backward()
    assert x[0].grad is None and x[1].grad is not None
    # A gradient that is one number for all.
    monkeypatch.undo()
    expected = plain[1].detach().requires_grad_()
    ROIPooler(**OPTIONS)([plain[0], expected], boxes).sum().backward()
    torch.testing.assert_close(x[1].grad, expected.grad)


def test_inference_mode(fast_only):
    pooler = FastROIPooler(**OPTIONS)
    expected = pooler(features(), USUAL)
    with torch.inference_mode():
        assert torch.equal(pooler(features(), USUAL), expected)


USUAL = [Boxes(torch.tensor(BOXES["usual"]))] * 2


@pytest.mark.parametrize(
    ("changes", "x", "boxes"),
    [
        (dict(sampling_ratio=2), features(), USUAL),
        (dict(pooler_type="ROIPool"), features(), USUAL),
        (
            dict(pooler_type="ROIAlignRotated"),
            features(),
            [RotatedBoxes(torch.tensor([[30.0, 30, 20, 20, 0]]))] * 2,
        ),
        ({}, [tensor.double() for tensor in features()], USUAL),
        (dict(output_size=(4, 6), scales=(1 / 4,)), features()[:1], USUAL),
        # On no level: zeros.
        ({}, features(), [Boxes(torch.tensor([[40.0, 40, 10, 60]]))] * 2),
        # A hundred thousand samples of a bin.
        ({}, features(), [Boxes(torch.tensor([[0.0, 0, 1e6, 40]]))] * 2),
    ],
    ids=["samples", "ROIPool", "rotated", "float64", "oblong", "swapped", "huge"],
)
def test_leaves_the_rest_to_stock(monkeypatch, changes, x, boxes):
    monkeypatch.setattr(_ROIAlign, "apply", None)
    stock, ours = (
        kind(**{**OPTIONS, **changes}).to(x[0].dtype) for kind in (ROIPooler, FastROIPooler)
    )
    if changes.get("pooler_type") == "ROIAlignRotated":
        # Only compiled Detectron2 has it: what matters is who does it.
        monkeypatch.setattr(ROIPooler, "forward", lambda self, x, box_lists: "stock")
        assert ours(x, boxes) == "stock"
    else:
        assert torch.equal(ours(x, boxes), stock(x, boxes))


def test_without_numba_it_is_the_stock_pooler(monkeypatch):
    monkeypatch.setenv(WITHOUT, "numba")
    monkeypatch.setattr(_ROIAlign, "apply", None)
    optional.cache_clear()
    try:
        found = both(features(), USUAL)
    finally:
        optional.cache_clear()
    assert all(torch.equal(stock, ours) for stock, ours in zip(*found, strict=True))


@pytest.mark.parametrize("error", [dict(x=features()[:1]), dict(box_lists=USUAL[:1])])
def test_errors_are_those_of_the_stock_pooler(error):
    arguments = dict(x=features(), box_lists=USUAL) | error
    for kind in (ROIPooler, FastROIPooler):
        with pytest.raises(AssertionError, match="unequal value"):
            kind(**OPTIONS)(**arguments)


def test_tracing_and_scripting_give_the_stock_pooler():
    pooler = FastROIPooler(**OPTIONS)
    expected = ROIPooler(**OPTIONS)(features(), USUAL)

    def run(*x):
        return pooler(list(x), USUAL)

    with warnings.catch_warnings():
        # The stock pooler's own.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(run, tuple(features()), check_trace=False)
    assert torch.equal(traced(*features()), expected)
    assert "roi_align" in str(traced.graph)
    assert type(pooler.__prepare_scriptable__()) is ROIPooler
    assert type(pooler) is FastROIPooler


def test_has_no_second_derivative(fast_only):
    x = [tensor.requires_grad_() for tensor in features(channels=2)]
    output = FastROIPooler(**OPTIONS)(x, USUAL)
    (gradient, _) = torch.autograd.grad((output**2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
