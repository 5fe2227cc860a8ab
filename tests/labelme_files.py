"""The digits as labelme writes them, and the COCO files that mean the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pycocotools.mask
from own_data import SPLITS


def write_labelme(digits: Path, root: Path) -> tuple[Path, Path]:
    """Write the digits into `root` in both forms.

    Returns:
        A folder with train/ and val/, in which a JSON file is beside each image; and one with train.json and
        val.json beside folders of images, made from those JSON files.
    """
    labelme, coco = root / "labelme", root / "coco"
    for split, name in SPLITS.items():
        for folder in (labelme, coco):
            shutil.copytree(digits / split, folder / name)
        content = json.loads((digits / "annotations" / f"{split}.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        for image in content["images"]:
            own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
            _write_file(labelme / name / image["file_name"], image, own, names)
    labels = [path for name in SPLITS.values() for path in (labelme / name).glob("*.json")]
    classes = sorted({one["label"] for path in labels for one in _content(path)["shapes"]})
    for name in SPLITS.values():
        content = _as_coco(sorted((labelme / name).glob("*.json")), classes)
        (coco / f"{name}.json").write_text(json.dumps(content))
    return labelme, coco


def _content(path: Path) -> dict:
    return json.loads(path.read_text())


def _write_file(path: Path, image: dict, annotations: list[dict], names: dict[int, str]) -> None:
    shapes = []
    for number, one in enumerate(annotations):
        parts = one["segmentation"]
        for part in parts:
            points = [list(point) for point in zip(part[::2], part[1::2], strict=True)]
            shape = {"label": names[one["category_id"]], "points": points, "shape_type": "polygon"}
            group = number if len(parts) > 1 else None
            shapes.append({**shape, "group_id": group, "description": "", "flags": {}})
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": path.name}
    content |= {"imageData": None, "imageHeight": image["height"], "imageWidth": image["width"]}
    path.with_suffix(".json").write_text(json.dumps(content, indent=2))


def _as_coco(paths: list[Path], classes: list[str]) -> dict:
    images, annotations = [], []
    for id_, path in enumerate(paths, 1):
        content = _content(path)
        height, width = content["imageHeight"], content["imageWidth"]
        images.append(
            {"id": id_, "file_name": content["imagePath"], "width": width, "height": height}
        )
        objects: dict[object, list[dict]] = {}
        for number, shape in enumerate(content["shapes"]):
            alone = shape["group_id"] is None
            objects.setdefault(("alone", number) if alone else shape["group_id"], []).append(shape)
        for shapes in objects.values():
            xs, ys = zip(*(point for shape in shapes for point in shape["points"]), strict=True)
            polygons = [[x for point in one["points"] for x in point] for one in shapes]
            drawn = pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, height, width))
            annotation = {"id": len(annotations) + 1, "image_id": id_, "iscrowd": 0}
            annotation["category_id"] = 1 + classes.index(shapes[0]["label"])
            annotation["bbox"] = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            annotation["segmentation"] = polygons
            annotations.append({**annotation, "area": int(pycocotools.mask.area(drawn))})
    categories = [{"id": id_, "name": name} for id_, name in enumerate(classes, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}
