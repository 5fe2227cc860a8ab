"""Masks, boxes and labels over an image, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from ssl_backbones.drawing.instances import contact_sheet, draw_instances, save_picture

GREY = np.full((400, 500, 3), 100, dtype=np.uint8)  # large enough not to be enlarged
BLUE = (0, 113, 188)  # the first of Detectron2's colours: (0.000, 0.447, 0.741) of 255


def draw(image=GREY, boxes=((10, 20, 60, 90),), labels=None, masks=None, classes=None):
    count = len(boxes)
    return draw_instances(
        image,
        boxes=boxes,
        classes=[0] * count if classes is None else classes,
        labels=[""] * count if labels is None else labels,
        masks=masks,
    )


def changed(picture, image=GREY):
    return (picture != image).any(2)


def test_a_box_is_drawn_around_its_pixels():
    picture = draw(boxes=[(10, 20, 60, 90)])
    rows, columns = np.nonzero(changed(picture))
    # It ends before x1 and y1, as in Detectron2: pixels are cells, and 60 is the right edge of pixel 59.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 89, 10, 59)
    assert not changed(picture)[22:88, 12:58].any()
    assert tuple(picture[20, 30]) == BLUE


def ring():
    """A mask with a hole."""
    mask = np.zeros((400, 500), dtype=bool)
    mask[100:200, 100:200] = True
    mask[140:160, 140:160] = False
    return mask


def run_lengths(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def plain_run_lengths(mask):
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat, [0]))))
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return {"size": list(mask.shape), "counts": counts}


@pytest.mark.parametrize("form", [np.asarray, run_lengths, plain_run_lengths])
def test_a_mask_is_blended_and_its_hole_stays_open(form):
    picture = draw(masks=[form(ring())], boxes=[(np.nan,) * 4])
    assert (changed(picture) == ring()).all()
    # Halfway between 100 and the colour, rounded to even.
    assert tuple(picture[120, 120]) == (50, 106, 144)


def test_polygons_and_those_that_are_none():
    corners = [100, 100, 200, 100, 200, 150, 100, 150]
    picture = draw(
        masks=[[corners, [1, 1, 2, 2]], None, [], [np.array(corners) + 200.0]],
        boxes=[(np.nan,) * 4] * 4,
    )
    expected = np.zeros((400, 500), dtype=bool)
    expected[100:150, 100:200] = expected[300:350, 300:400] = True
    assert (changed(picture) == expected).all()


def test_a_class_has_one_colour_and_the_last_instance_is_on_top():
    box = (10, 20, 60, 90)
    picture = draw(boxes=[box, box], classes=[1, 0])
    assert tuple(picture[20, 30]) == BLUE
    assert (draw(boxes=[box], classes=[74]) == draw(boxes=[box], classes=[0])).all()
    assert (draw(boxes=[box], classes=[1]) != draw(boxes=[box], classes=[0])).any()


@pytest.mark.parametrize("box", [(300, 200, 400, 300), (450, 0, 500, 40), (-50, -50, 20, 20)])
def test_a_label_stands_at_its_box_inside_the_image(box):
    without, picture = draw(boxes=[box]), draw(boxes=[box], labels=["a long name 87%"])
    rows, columns = np.nonzero((picture != without).any(2))
    # All fifteen letters of it, which need seven pixels each.
    assert columns.max() - columns.min() > 100
    assert abs(rows.mean() - max(box[1], 0)) < 30


@pytest.mark.parametrize("label", ["$\\frac$", "a\nb", "<script>", "数字", "\t"])
def test_any_text_is_a_label(label):
    assert draw(labels=[label]).shape == GREY.shape


def test_small_images_are_enlarged_by_a_whole_number():
    image = np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)
    picture = draw(image, boxes=[])
    assert picture.shape == (320, 480, 3)
    assert (picture[2::5, 2::5] == image).all()
    box = draw(np.zeros_like(image), boxes=[(10, 20, 30, 40)])
    rows, columns = np.nonzero(box.any(2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 199, 50, 149)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_image_and_box(data):
    height, width = (data.draw(st.integers(1, 700)) for _ in range(2))
    numbers = st.floats(-1e4, 1e4) | st.sampled_from([np.nan, np.inf])
    boxes = data.draw(st.lists(st.tuples(*[numbers] * 4), max_size=3))
    image = np.zeros((height, width, 3), dtype=np.uint8)
    before = image.copy()
    picture = draw(image, boxes=boxes, labels=["name"] * len(boxes))
    factor = picture.shape[0] // height
    assert picture.shape == (factor * height, factor * width, 3)
    assert max(picture.shape) <= max(1280, height, width)
    assert (image == before).all()


def test_a_contact_sheet_holds_every_picture_once():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    pictures = [np.full((30 + 200 * n, 600, 3), c, np.uint8) for n, c in enumerate(colours)]
    sheet = contact_sheet(pictures, ["a very long caption, longer than its tile " * 3] * 5)
    assert sheet.shape == (2 * 340, 4 * 320, 3)
    for number, colour in enumerate(colours):
        column, row = number % 4, number // 4
        tile = sheet[row * 340 : row * 340 + 320, column * 320 : (column + 1) * 320]
        assert tuple(tile[160, 160]) == colour
        assert (sheet == colour).all(2).sum() == (tile == colour).all(2).sum()
    # Captions do not reach into the neighbour's tile.
    assert (sheet[322:338, 316:322] == 255).all()


def test_pictures_are_written_by_their_ending(tmp_path):
    from PIL import Image

    picture = draw()
    save_picture(tmp_path / "a.png", picture)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == picture).all()
    save_picture(tmp_path / "a.jpg", picture)
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"
