"""The fast mapper, output by output against Detectron2's with the same random numbers."""

import copy

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints, PolygonMasks
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_backbones.fast.mapping import mapper
from ssl_backbones.fast.mapping.mapper import FastDatasetMapper

HEIGHT, WIDTH = 30, 41
RESIZE = T.ResizeShortestEdge((20, 50), 60, "range")
TRIANGLE = [2.25, 3.5, 20.75, 4.125, 9.1, 25.3]
SQUARE = [1.5, 1.5, 8.5, 1.5, 8.5, 8.5, 1.5, 8.5]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8))
    image.save(folder / "a.jpg")
    image.save(folder / "a.png")
    Image.fromarray(rng.integers(9, size=(HEIGHT, WIDTH), dtype=np.uint8)).save(folder / "seg.png")
    return folder


@pytest.fixture
def record(folder):
    return record_of(
        folder, [annotation(), annotation(category_id=3, segmentation=[SQUARE, TRIANGLE])]
    )


def record_of(folder, annotations, **more):
    record = {"file_name": str(folder / "a.jpg"), "height": HEIGHT, "width": WIDTH, "image_id": 7}
    return {**record, **more, "annotations": annotations}


def annotation(**changes):
    usual = {
        "iscrowd": 0,
        "bbox": [2.25, 3.5, 18.5, 21.8],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 1,
        "segmentation": [TRIANGLE],
    }
    return {key: value for key, value in {**usual, **changes}.items() if value is not None}


def plain(value):
    """A value as nested lists with the types of all that is in it, which pytest can compare and show."""
    if isinstance(value, torch.Tensor):
        return "tensor", value.dtype, value.is_contiguous(), value.shape, value.tolist()
    if isinstance(value, np.ndarray):
        return "array", value.dtype, value.shape, value.tolist()
    if isinstance(value, Instances):
        fields = {name: plain(field) for name, field in value.get_fields().items()}
        return "Instances", [type(side) for side in value.image_size], value.image_size, fields
    if isinstance(value, Boxes | BitMasks | Keypoints):
        return type(value), plain(value.tensor)
    if isinstance(value, PolygonMasks):
        return type(value), [
            [plain(polygon) for polygon in polygons] for polygons in value.polygons
        ]
    return value


def result_of(mapper_class, record, seed, options):
    options = {
        "is_train": True,
        "augmentations": [RESIZE, T.RandomFlip()],
        "image_format": "RGB",
        "use_instance_mask": True,
        **options,
    }
    if options["augmentations"] is None:  # a config
        options = {"cfg": options["image_format"], "is_train": options["is_train"]}
    np.random.seed(seed)
    record = copy.deepcopy(record)
    before = plain_record(record)
    try:
        output = {k: plain(v) for k, v in mapper_class(**options)(record).items()}
    except Exception as error:
        output = type(error), str(error)
    else:
        output = list(output.items())  # in order
    assert plain_record(record) == before, "the input was changed"
    return output, np.random.random()


def plain_record(record):
    return repr(record)


def assert_mapped_alike(record, seeds=range(4), **options):
    for seed in seeds:
        expected = result_of(DatasetMapper, record, seed, options)
        assert result_of(FastDatasetMapper, record, seed, options) == expected
    return expected[0]


@pytest.fixture
def alone(monkeypatch):
    """Without Detectron2's mapper, and its annotations, to fall back on."""

    def refuse(*args):
        raise AssertionError("left to Detectron2")

    monkeypatch.setattr(DatasetMapper, "__call__", refuse)
    monkeypatch.setattr(DatasetMapper, "_transform_annotations", refuse)


def assert_fast(record, **options):
    output, _ = result_of(FastDatasetMapper, record, 0, options)
    assert isinstance(output, list), output


FAST_OPTIONS = {
    "as in the recipes": {},
    "BGR": {"image_format": "BGR"},
    "only flipped": {
        "augmentations": [T.RandomFlip(0.5), T.RandomFlip(0.5, horizontal=False, vertical=True)]
    },
    "flipped twice": {"augmentations": [RESIZE, T.RandomFlip(), T.RandomFlip()]},
    "flipped first": {"augmentations": [T.RandomFlip(), RESIZE]},
    "upside down": {"augmentations": [RESIZE, T.RandomFlip(0.5, horizontal=False, vertical=True)]},
    "resized twice": {"augmentations": [T.Resize((17, 60)), T.RandomFlip(), RESIZE]},
    "resized by bicubic interpolation": {"augmentations": [T.Resize((50, 60), Image.BICUBIC)]},
    "shrunk": {"augmentations": [T.ResizeShortestEdge([9, 13], 60, "choice"), T.RandomFlip()]},
    "scaled": {"augmentations": [T.ResizeScale(0.5, 2.0, 40, 40), T.RandomFlip()]},
    "as it is": {"augmentations": []},
    "as it is by choice": {"augmentations": [T.ResizeShortestEdge([0], 60, "choice")]},
    "without masks": {"use_instance_mask": False},
    "boxes of the masks": {"recompute_boxes": True},
    "for a test": {"is_train": False},
}
STOCK_OPTIONS = {
    "gray": {"image_format": "L"},
    "cropped": {"augmentations": [T.RandomCrop("absolute", (20, 20)), RESIZE]},
    "cropped, boxes of what is left": {
        "augmentations": [T.RandomCrop("absolute", (20, 20))],
        "recompute_boxes": True,
    },
    "rotated": {"augmentations": [T.RandomRotation([20, 30])]},
    "by a transform": {"augmentations": [T.HFlipTransform(WIDTH)]},
    "bit masks": {"instance_mask_format": "bitmask"},
    "boxes of bit masks": {"instance_mask_format": "bitmask", "recompute_boxes": True},
    "no such mask format": {"instance_mask_format": "none"},
}


@pytest.mark.parametrize("name", FAST_OPTIONS)
def test_options_that_are_fast(record, name, request):
    output = assert_mapped_alike(record, **FAST_OPTIONS[name])
    assert isinstance(output, list), output
    request.getfixturevalue("alone")
    assert_fast(record, **FAST_OPTIONS[name])


@pytest.mark.parametrize("name", STOCK_OPTIONS)
def test_options_left_to_detectron2(record, name):
    assert_mapped_alike(record, **STOCK_OPTIONS[name])


RLE = pycocotools.mask.encode(np.asfortranarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)))
FAST_ANNOTATIONS = {
    "none": [],
    "only a crowd": [annotation(iscrowd=1, segmentation=RLE)],
    "a crowd among others": [annotation(), annotation(iscrowd=1, segmentation=RLE), annotation()],
    "no word of crowds": [annotation(iscrowd=None)],
    "no masks": [annotation(segmentation=None), annotation(segmentation=None)],
    "boxes by corners": [annotation(bbox_mode=BoxMode.XYXY_ABS), annotation()],
    "whole numbers, which are truncated": [
        annotation(bbox=[3, 4, 10, 11], segmentation=[[1, 2, 30, 4, 5, 26]]),
        annotation(
            bbox=[3, 4, 10, 11],
            bbox_mode=BoxMode.XYXY_ABS,
            segmentation=[SQUARE, [1, 2, 3, 4, 5, 6]],
        ),
        annotation(bbox=[3, 4.5, 10, 11], segmentation=[[1, 2.5, 30, 4, 5, 26]]),
    ],
    "beyond the image": [
        annotation(
            bbox=[-5.5, -3.0, 100.0, 100.0], segmentation=[[-9.0, -9.0, 99.0, 0.5, 3.0, 99.0]]
        )
    ],
    "empty boxes": [
        annotation(bbox=[3.5, 4.5, 0.0, 5.0]),
        annotation(),
        annotation(bbox=[50.0, 50.0, 5.0, 5.0]),
    ],
    "an empty mask": [annotation(), annotation(segmentation=[])],
    "arrays": [annotation(segmentation=[np.array(TRIANGLE), np.array(SQUARE).reshape(-1, 2)])],
    "not a number": [annotation(bbox=[float("nan"), 1.0, 2.0, float("inf")])],
    "keypoints that are not wanted": [annotation(keypoints=[1.0, 2.0, 2] * 3)],
}
STOCK_ANNOTATIONS = {
    "a run-length mask": [annotation(), annotation(segmentation=RLE)],
    "32 bits": [annotation(segmentation=[np.array(TRIANGLE, np.float32), SQUARE])],
    "an array for a box": [
        annotation(bbox=np.array([1.0, 2.0, 3.0, 4.0]), bbox_mode=BoxMode.XYXY_ABS)
    ],
    "a tuple for a box": [annotation(bbox=(1.5, 2.0, 3.0, 4.0))],
    "a rotated box": [annotation(bbox=[9.0, 9.0, 5.0, 4.0, 30.0], bbox_mode=BoxMode.XYWHA_ABS)],
    "a box of another mode": [annotation(bbox_mode=BoxMode.XYWH_REL)],
    "a box of five": [annotation(bbox=[1.0, 2.0, 3.0, 4.0, 5.0])],
    "a box of strings": [annotation(bbox=["1", "2", "3", "4"])],
    "a box of huge numbers": [annotation(bbox=[1, 2, 2**70, 4])],
    "a mask for the first only": [annotation(), annotation(segmentation=None)],
    "a mask for the last only": [annotation(segmentation=None), annotation()],
    "a polygon of two points": [annotation(segmentation=[[1.0, 2.0, 3.0, 4.0]])],
    "a polygon of odd length": [annotation(segmentation=[[*TRIANGLE, 1.0]])],
    "a polygon of strings": [annotation(segmentation=[["1", "2", "3", "4", "5", "6"]])],
    "a mask that is none": [annotation(segmentation="mask")],
    "no category": [annotation(category_id=None)],
    "no box": [annotation(bbox=None)],
}


@pytest.mark.parametrize("name", FAST_ANNOTATIONS)
def test_annotations_that_are_fast(folder, name, request):
    record = record_of(folder, FAST_ANNOTATIONS[name])
    output = assert_mapped_alike(record)
    assert isinstance(output, list), output
    assert_mapped_alike(record, recompute_boxes=True)
    request.getfixturevalue("alone")
    assert_fast(record)


@pytest.mark.parametrize("name", STOCK_ANNOTATIONS)
def test_annotations_left_to_detectron2(folder, name):
    assert_mapped_alike(record_of(folder, STOCK_ANNOTATIONS[name]))


numbers = st.floats(-50, 90, width=32) | st.floats(-50, 90) | st.integers(-50, 90)
polygons = st.lists(numbers, min_size=6, max_size=14).filter(lambda p: len(p) % 2 == 0)
annotations = st.builds(
    annotation,
    bbox=st.lists(numbers, min_size=4, max_size=4),
    bbox_mode=st.sampled_from([BoxMode.XYXY_ABS, BoxMode.XYWH_ABS]),
    category_id=st.integers(0, 5),
    iscrowd=st.sampled_from([0, 0, 1]),
    segmentation=st.lists(polygons, max_size=3),
)


@settings(deadline=None)
@given(st.lists(annotations, max_size=5), st.integers(0, 99))
def test_any_boxes_and_polygons(folder, annotations, seed):
    assert_mapped_alike(record_of(folder, annotations), seeds=[seed])


def test_other_data_of_an_image(folder, record):
    """Semantic segmentation, proposals, and keys that nobody knows."""
    more = {
        "sem_seg_file_name": str(folder / "seg.png"),
        "proposal_boxes": np.array(
            [[1.0, 2.0, 20.0, 25.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 9.0, 9.0]]
        ),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
        "proposal_objectness_logits": np.array([3.0, 2.0, 1.0]),
        "mine": {"a": [1, 2]},
    }
    for is_train in (True, False):
        output = dict(
            assert_mapped_alike({**record, **more}, is_train=is_train, precomputed_proposal_topk=2)
        )
        assert {"sem_seg", "proposals", "mine"} <= set(output)


def test_keypoints_are_left_to_detectron2(folder):
    keypoints = [3.0, 4.0, 2, 30.0, 20.0, 1, 0, 0, 0]
    record = record_of(folder, [annotation(keypoints=keypoints), annotation(keypoints=keypoints)])
    output = assert_mapped_alike(record, use_keypoint=True, keypoint_hflip_indices=[1, 0, 2])
    assert "gt_keypoints" in dict(output)["instances"][-1]


def test_images_of_other_kinds_and_sizes(folder, record):
    assert_mapped_alike({**record, "file_name": str(folder / "a.png")})
    assert_mapped_alike(
        {k: v for k, v in record.items() if k not in ("height", "width", "annotations")}
    )
    assert assert_mapped_alike({**record, "height": 31})[0] is detection_utils.SizeMismatchError
    assert (
        assert_mapped_alike({**record, "file_name": str(folder / "no.jpg")})[0] is FileNotFoundError
    )
    assert assert_mapped_alike(record, augmentations=[T.Resize((0, 5))])[0] is ValueError


def test_it_is_made_from_a_config_as_well(record):
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (40, 50), 60
    for is_train in (True, False):
        assert_mapped_alike(record, augmentations=None, image_format=cfg, is_train=is_train)
    assert (
        FastDatasetMapper(cfg, True).exact and not FastDatasetMapper(cfg, True, exact=False).exact
    )


def test_a_subclass_that_transforms_annotations_gets_its_own_copy(record):
    class Mine:
        def _transform_annotations(self, dataset_dict, transforms, image_shape):
            dataset_dict["annotations"][0]["segmentation"][0][0] = 5.5
            super()._transform_annotations(dataset_dict, transforms, image_shape)

    stock, fast = (type("Mine", (Mine, base), {}) for base in (DatasetMapper, FastDatasetMapper))
    expected = result_of(stock, record, 0, {})
    assert result_of(fast, record, 0, {}) == expected
    assert expected != result_of(DatasetMapper, record, 0, {})


def test_pixels_may_be_off_by_a_level_if_it_need_not_be_exact(record):
    options = {"augmentations": [T.Resize((55, 77))], "image_format": "RGB"}
    expected = DatasetMapper(True, **options)(record)["image"].int()
    fast = FastDatasetMapper(True, exact=False, **options)(record)["image"].int()
    assert (fast - expected).abs().max() <= 1


def test_what_is_unusual_is_an_error_of_its_own(monkeypatch, record):
    """A fault within the fast code is no reason to fall back."""
    monkeypatch.setattr(mapper, "_transform_boxes", lambda *args: 1 / 0)
    assert issubclass(mapper.UnusualAnnotationError, ValueError)
    with pytest.raises(ZeroDivisionError):
        FastDatasetMapper(True, augmentations=[RESIZE], image_format="RGB")(record)


def test_a_size_is_all_that_these_augmentations_look_at():
    """None of those that the mapper shows no pixels to may come to depend on them."""
    blank, noise = (
        np.zeros((9, 8, 3), np.uint8),
        np.random.default_rng(0).integers(256, size=(9, 8, 3)),
    )
    for augmentation in (T.RandomFlip(), T.Resize((5, 6)), T.ResizeScale(0.5, 2, 9, 9), RESIZE):
        assert type(augmentation) in mapper._BLIND
        drawn = []
        for image in (blank, noise.astype(np.uint8)):
            np.random.seed(0)
            drawn.append(repr(augmentation.get_transform(image)))
        assert drawn[0] == drawn[1]
