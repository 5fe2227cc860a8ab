"""Masks that are whole and masks that are not, encoded by pycocotools and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from ssl_backbones.fast.evaluation import detections as module
from ssl_backbones.fast.evaluation.detections import MOST_PIXELS, Strings, first_damaged

FEW = settings(max_examples=60, deadline=None)
RUNS = st.lists(st.integers(-(2**33), 2**33) | st.integers(-3, 40), min_size=1, max_size=9)


def text_of(runs):
    """COCO's characters of any integers, as pycocotools' `rleToString` writes them."""
    characters = ""
    for place, run in enumerate(runs):
        rest = run - runs[place - 2] if place > 2 else run
        while True:
            low, rest = rest & 31, rest >> 5
            more = rest != (-1 if low & 16 else 0)
            characters += chr(low + 32 * more + 48)
            if not more:
                break
    return characters


@pytest.fixture(params=["numba", "python"])
def find(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(module, "numba_or_none", lambda purpose: None)
    return damaged


def damaged(counts, pixels):
    """The first damaged one of masks in images that are one pixel wide."""
    rles = zip(counts, pixels, strict=True)
    return first_damaged(Strings.pack([{"counts": c, "size": [n, 1]} for c, n in rles]))


def both_ways(counts, pixels):
    compiled = damaged(counts, pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "numba_or_none", lambda purpose: None)
        assert damaged(counts, pixels) == compiled
    return compiled


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6), st.data()
)
@FEW
def test_what_pycocotools_encodes_is_whole(sizes, data):
    counts = []
    for height, width in sizes:
        random = np.random.default_rng(data.draw(st.integers(0, 1000)))
        pixels = random.random((height, width)) < random.random()
        encoded = mask_util.encode(np.asfortranarray(pixels, np.uint8))
        counts.append(encoded["counts"].decode())
    pixels = [height * width for height, width in sizes]
    assert both_ways(counts, pixels) is None
    # One pixel more or fewer, somewhere.
    wrong = data.draw(st.integers(0, len(sizes) - 1))
    pixels[wrong] += data.draw(st.sampled_from([-1, 1]))
    assert both_ways(counts, pixels) == wrong


@given(st.lists(RUNS, min_size=1, max_size=4))
@FEW
def test_any_integers(masks):
    pixels = [min(max(sum(runs), 0), MOST_PIXELS) for runs in masks]
    are_damaged = [
        min(runs) < 0 or sum(runs) != number or not number
        for runs, number in zip(masks, pixels, strict=True)
    ]
    expected = are_damaged.index(True) if any(are_damaged) else None
    assert both_ways([text_of(runs) for runs in masks], pixels) == expected


@given(
    st.lists(
        st.tuples(st.text(st.characters(max_codepoint=127), min_size=1), st.integers(0, 99)),
        max_size=5,
    )
)
@FEW
def test_any_text_gives_the_same_with_and_without_numba(masks):
    both_ways([text for text, _ in masks], [pixels for _, pixels in masks])


def test_the_text_of_runs_is_that_of_pycocotools():
    # Were the tests' own encoder wrong, the rest would say little.
    for runs in ([2400], [0, 2400], [7, 30, 1000, 3, 60, 1300], [2390, 0, 0, 10]):
        encoded = mask_util.frPyObjects({"size": [40, 60], "counts": runs}, 40, 60)
        assert encoded["counts"].decode() == text_of(runs)


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        (text_of([0, 1000]), 2400),
        (text_of([0, 3000]), 2400),
        (text_of([3000, -600]), 2400),
        (text_of([100, 2500, 100, -300]), 2400),
        # The last number is cut off: "more follows".
        (text_of([0, 2400])[:-1], 2400),
        (text_of([0, 5]) + "P", 5),
        # Not among the 64 characters.
        ("/", 31),
        ("p", 0),
        # Written with more characters than a number has.
        ("5" + "P" * 12 + "0", 5),
        # Past 64 bits, where integers begin anew.
        (text_of([2**40, 2**62, 2**62, 2**62, 2**62]), 2**40 % 2**32),
    ],
)
def test_damaged_ones(find, text, pixels):
    whole = text_of([2, 3])
    assert find([whole, text, whole], [5, pixels, 5]) == 1


def test_runs_without_pixels_are_as_good_as_any(find):
    assert find([text_of([0, 0, 5, 0, 0, 0])], [5]) is None


def test_the_largest_image(find):
    half = MOST_PIXELS // 2
    assert find([text_of([1, half, 0, half]), text_of([MOST_PIXELS])], [MOST_PIXELS] * 2) is None


def test_none_are_all_whole(find):
    assert find([], []) is None


@pytest.mark.parametrize("place", [0, 7, 20])
def test_the_first_damaged_one_of_many(find, place):
    counts = [text_of([2, 3])] * 21
    counts[place] = counts[20] = text_of([2, 2])
    assert find(counts, [5] * 21) == place
