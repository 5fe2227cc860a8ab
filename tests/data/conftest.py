"""A dataset of images of several shapes, and the lazy call that trains on it."""

import json

import numpy as np
import pytest

NUM = 17


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> str:
    """Name of a registered dataset: 17 noisy images, 10 of them landscape, each with one annotation."""
    from detectron2.data.datasets import register_coco_instances
    from PIL import Image

    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(NUM):
        width, height = (48, 32) if i < 10 else (32, 40) if i < 14 else (40, 40)
        pixels = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02}.png")
        images.append({"id": i, "file_name": f"{i:02}.png", "width": width, "height": height})
        box = {"bbox": [4, 5, 20, 22], "area": 440, "iscrowd": 0, "category_id": 1 + i % 2}
        annotations.append({"id": i + 1, "image_id": i, **box})
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))
    register_coco_instances("shapes", {}, str(root / "annotations.json"), str(root))
    return "shapes"


@pytest.fixture()
def loader_cfg(shapes):
    """`dataloader.train` as Detectron2's model zoo writes it, with augmentations that draw a lot."""
    import detectron2.data.transforms as T
    from detectron2.config import LazyCall as L
    from detectron2.data import (
        DatasetMapper,
        build_detection_train_loader,
        get_detection_dataset_dicts,
    )

    return L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names=shapes),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=(24, 40), sample_style="range", max_size=80
                ),
                L(T.RandomBrightness)(intensity_min=0.5, intensity_max=1.5),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="RGB",
        ),
        total_batch_size=4,
        num_workers=0,
    )
