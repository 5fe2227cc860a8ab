"""The digits as a YOLO folder, and the same as COCO files, read from YOLO's text by other lines than ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pycocotools.mask
import yaml
from own_data import SPLITS


def write_yolo(digits: Path, root: Path, *, segments: bool) -> tuple[Path, Path]:
    """Write root/yolo with data.yaml, and root/coco with train.json and val.json beside their images.

    Args:
        segments: whether rows are polygons, of each digit its first, or boxes.

    Returns:
        The two folders.
    """
    yolo, coco = root / "yolo", root / "coco"
    for split, name in SPLITS.items():
        content = json.loads((digits / "annotations" / f"{split}.json").read_text())
        names = [one["name"] for one in sorted(content["categories"], key=lambda one: one["id"])]
        shutil.copytree(digits / split, yolo / "images" / name)
        shutil.copytree(digits / split, coco / name)
        (yolo / "labels" / name).mkdir(parents=True)
        for image in content["images"]:
            rows = [
                _row(one, image["width"], image["height"], segments)
                for one in content["annotations"]
                if one["image_id"] == image["id"]
            ]
            path = yolo / "labels" / name / Path(image["file_name"]).with_suffix(".txt")
            path.write_text("".join(rows))
        twin = _coco(content["images"], names, yolo / "labels" / name)
        (coco / f"{name}.json").write_text(json.dumps(twin))
    places = {name: f"images/{name}" for name in SPLITS.values()}
    (yolo / "data.yaml").write_text(yaml.safe_dump({"path": ".", **places, "names": names}))
    return yolo, coco


def _row(one: dict, width: int, height: int, segments: bool) -> str:
    x, y, w, h = one["bbox"]
    values = one["segmentation"][0] if segments else [x + w / 2, y + h / 2, w, h]
    shares = [value / (height if at % 2 else width) for at, value in enumerate(values)]
    return " ".join([str(one["category_id"] - 1), *(f"{share:.6f}" for share in shares)]) + "\n"


def _coco(images: list[dict], names: list[str], labels: Path) -> dict:
    content = {"images": [], "annotations": []}
    content["categories"] = [{"id": id_, "name": name} for id_, name in enumerate(names, 1)]
    for image in sorted(images, key=lambda one: one["file_name"]):
        number, width, height = len(content["images"]) + 1, image["width"], image["height"]
        content["images"].append(
            {"id": number, **{key: image[key] for key in ("file_name", "width", "height")}}
        )
        text = (labels / Path(image["file_name"]).with_suffix(".txt")).read_text()
        for kind, *shares in (line.split() for line in text.splitlines()):
            one = {"id": len(content["annotations"]) + 1, "image_id": number, "iscrowd": 0}
            xs = [float(share) for share in shares[::2]]
            ys = [float(share) for share in shares[1::2]]
            if len(shares) == 4:
                left, top = xs[0] - xs[1] / 2, ys[0] - ys[1] / 2
                one["bbox"] = [left * width, top * height, xs[1] * width, ys[1] * height]
                one["area"] = one["bbox"][2] * one["bbox"][3]
            else:
                xs, ys = [x * width for x in xs], [y * height for y in ys]
                one["bbox"] = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
                one["segmentation"] = [
                    [value for point in zip(xs, ys, strict=True) for value in point]
                ]
                (mask,) = pycocotools.mask.frPyObjects(one["segmentation"], height, width)
                one["area"] = int(pycocotools.mask.area(mask))
            content["annotations"].append({**one, "category_id": int(kind) + 1})
    return content
