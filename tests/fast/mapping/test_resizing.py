"""The resize, pixel by pixel against Pillow's."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_backbones.fast.acceleration import numba_or_none
from ssl_backbones.fast.mapping import resizing
from ssl_backbones.fast.mapping.resizing import resize

sides = st.integers(1, 70)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def pillow(image, height, width, hflip=False, vflip=False):
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))
    resized = np.flip(resized, axis=[axis for axis, flip in enumerate((vflip, hflip)) if flip])
    return resized.transpose(2, 0, 1)


@settings(deadline=None)  # the first one may have to compile
@given(sides, sides, sides, sides, st.booleans(), st.booleans(), st.integers(0, 9))
def test_every_pixel_is_pillows(height, width, new_height, new_width, hflip, vflip, seed):
    image = noise(height, width, seed)
    planes = resize(image, new_height, new_width, hflip=hflip, vflip=vflip)
    assert planes.is_contiguous()
    assert (planes.numpy() == pillow(image, new_height, new_width, hflip, vflip)).all()


@pytest.mark.parametrize(
    "size, new_size",
    [
        ((427, 640), (800, 1199)),  # COCO's usual size at the recipes' scale
        ((480, 640), (640, 853)),
        ((640, 481), (1333, 1002)),
        ((333, 500), (333, 750)),  # one side as it is
        ((1200, 1600), (800, 1067)),
        ((900, 1201), (37, 50)),  # 24-fold, so many taps
        ((1201, 12), (600, 6)),  # from here, Pillow 13 goes along y first
        ((400, 640), (300, 591)),
        ((400, 640), (300, 590)),  # and here, it does not
        ((12, 1201), (6, 600)),
    ],
)
def test_every_pixel_is_pillows_at_real_sizes(size, new_size):
    image = noise(*size)
    for shown in (image, np.where(image < 128, 0, 255).astype(np.uint8)):
        assert (resize(shown, *new_size).numpy() == pillow(shown, *new_size)).all()


@pytest.mark.parametrize("exact", [True, False])
@settings(deadline=None)
@given(sides, sides, sides, sides, st.booleans())
def test_it_is_within_a_level_if_it_need_not_be_exact(
    exact, height, width, new_height, new_width, flip
):
    image = noise(height, width)
    expected = pillow(image, new_height, new_width, hflip=flip).astype(int)
    for kernels in (resizing._kernels(), None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resizing, "_kernels", lambda kernels=kernels: kernels)
            planes = resize(image, new_height, new_width, hflip=flip, exact=exact)
        assert planes.is_contiguous()
        assert abs(planes.numpy() - expected).max() <= (0 if exact else 1)


def test_the_kernels_are_what_is_tested():
    if numba_or_none("Testing") is None:
        pytest.skip("without numba")
    assert resizing._kernels() is not None


@pytest.mark.parametrize("image", [noise(9, 8)[:, :, ::-1], noise(9, 8)[::2, ::-1], noise(9, 8)])
def test_memory_of_any_kind_is_taken(image):
    image.setflags(write=False)
    assert (resize(image, 12, 11).numpy() == pillow(image, 12, 11)).all()


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_size_that_leaves_nothing_is_pillows_error(size):
    with pytest.raises(ValueError) as expected:
        Image.fromarray(noise(3, 4)).resize(size[::-1])
    with pytest.raises(ValueError) as raised:
        resize(noise(3, 4), *size)
    assert str(raised.value) == str(expected.value)


def test_a_pillow_that_computes_otherwise_is_used_itself(monkeypatch, caplog):
    """As Pillow-SIMD: equality with the Pillow that is installed is what is promised."""
    if numba_or_none("Testing") is None:
        pytest.skip("without numba")
    monkeypatch.setattr(resizing, "_with_pillow", lambda *args: np.uint8(255) - pillow(*args))
    with caplog.at_level(logging.WARNING):
        assert resizing._kernels.__wrapped__() is None
    assert "images are left to it" in caplog.text
