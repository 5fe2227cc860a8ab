"""Polygons are held against pycocotools, which rasterises them as COCO's evaluation does."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ssl_backbones.data.digits.digit_scenes import mask_to_polygons


def rasterise(polygons, height, width):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(
        bool
    )


def test_a_rectangle_comes_back_to_the_pixel():
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:7, 3:12] = True  # touches the right edge
    (polygon,) = mask_to_polygons(mask)
    corners = {tuple(point) for point in np.reshape(polygon, (-1, 2)).tolist()}
    assert corners == {(3, 2), (12, 2), (12, 7), (3, 7)}
    np.testing.assert_array_equal(rasterise([polygon], 10, 12), mask)


def test_coordinates_are_in_pixels_of_the_image():
    mask = np.zeros((40, 40), dtype=bool)
    mask[8:24, 16:32] = True
    (polygon,) = mask_to_polygons(mask, scale=8)
    assert sorted(set(polygon)) == [1, 2, 3, 4]


def test_holes_stay_open():
    mask = np.zeros((160, 160), dtype=bool)
    mask[16:144, 16:144] = True
    mask[40:64, 40:64] = False
    mask[96:128, 80:120] = False
    polygons = mask_to_polygons(mask, scale=8)
    assert len(polygons) == 1
    raster = rasterise(polygons, 20, 20)
    expected = mask[4::8, 4::8]  # every edge lies between pixels, so each is all in or all out
    # Each of the two holes may lose its corners, and nothing else, to the rasteriser's rounding.
    assert (raster & ~expected).sum() <= 8
    assert not (expected & ~raster).any()
    assert not raster[5:8, 6].any() and not raster[13:15, 11:14].any()


def test_parts_become_polygons_of_their_own():
    mask = np.zeros((20, 20), dtype=bool)
    mask[1:6, 1:6] = True
    mask[10:18, 12] = True  # one pixel wide
    mask[15, 3] = True  # a single pixel
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 3
    np.testing.assert_array_equal(rasterise(polygons, 20, 20), mask)


def test_an_empty_mask_has_no_polygon():
    assert mask_to_polygons(np.zeros((8, 8), dtype=bool)) == []


@pytest.mark.parametrize("radius", [6, 11.5])
def test_a_ring_keeps_its_area(radius):
    scale, side = 8, 32
    y, x = (np.mgrid[: side * scale, : side * scale] + 0.5) / scale - side / 2
    distance = np.hypot(x, y)
    polygons = mask_to_polygons((distance < radius) & (distance > radius / 2), scale)
    area = np.pi * (radius**2 - (radius / 2) ** 2)
    assert rasterise(polygons, side, side).sum() == pytest.approx(area, rel=0.03)
