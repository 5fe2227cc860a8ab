"""One of several augmentations: how it is drawn, and that both mappers make the same of it."""

import copy

import numpy as np
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from ssl_backbones.data.augmentations import OneOf
from ssl_backbones.fast.mapping.mapper import FastDatasetMapper


def test_each_is_drawn_as_often_and_whole():
    resize, turn = T.Resize((5, 7)), T.RandomFlip(prob=1.0)
    one_of = OneOf([[resize], [turn, resize]])
    np.random.seed(0)
    counts = {1: 0, 2: 0}
    for _ in range(1000):
        given = T.AugInput(np.zeros((3, 4, 3), np.uint8))
        transforms = T.AugmentationList([one_of])(given)
        assert given.image.shape == (5, 7, 3)
        counts[len(transforms.transforms)] += 1
    # Four standard deviations of a fair coin about 500.
    assert 437 < counts[1] < 563 and sum(counts.values()) == 1000


def test_a_config_makes_it():
    resize = LazyCall(T.ResizeShortestEdge)(short_edge_length=[400], sample_style="choice")
    made = instantiate(LazyCall(OneOf)(choices=[[resize], [resize, LazyCall(T.RandomFlip)()]]))
    kinds = [[type(one) for one in choice.augs] for choice in made.choices]
    assert kinds == [[T.ResizeShortestEdge], [T.ResizeShortestEdge, T.RandomFlip]]


def test_the_fast_mapper_and_detectron2s_make_the_same_of_it(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(256, size=(60, 82, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    annotations = [
        {
            "iscrowd": 0,
            "bbox": [x, 3.5, 18.5, 21.8],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 1,
            "segmentation": [[x, 3.5, x + 18.5, 4.1, x + 9.0, 25.3]],
        }
        for x in (2.25, 40.5)
    ]
    record = {"file_name": str(tmp_path / "a.jpg"), "height": 60, "width": 82, "image_id": 7}
    record["annotations"] = annotations
    before = copy.deepcopy(record)
    resize = T.ResizeShortestEdge([40, 50], 90, "choice")
    ways = [[resize], [resize, T.RandomCrop("absolute_range", (20, 40)), resize]]
    options = {
        "is_train": True,
        "augmentations": [T.RandomFlip(), OneOf(ways)],
        "image_format": "RGB",
        "use_instance_mask": True,
    }
    sizes = set()
    for seed in range(12):
        found = []
        for mapper in (DatasetMapper, FastDatasetMapper):
            np.random.seed(seed)
            found.append((mapper(**options)(record), np.random.random()))
        (stock, drawn), (fast, drawn_too) = found
        assert drawn == drawn_too and record == before
        assert torch.equal(stock["image"], fast["image"])
        one, other = stock["instances"], fast["instances"]
        assert torch.equal(one.gt_boxes.tensor, other.gt_boxes.tensor)
        assert torch.equal(one.gt_classes, other.gt_classes)
        for masks, others in zip(one.gt_masks.polygons, other.gt_masks.polygons, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(masks, others, strict=True))
        sizes.add((tuple(stock["image"].shape), len(one)))
    # Resized whole and cropped before, and an object that was cut off.
    assert len({shape for shape, _ in sizes}) > 4 and {1, 2} <= {count for _, count in sizes}
