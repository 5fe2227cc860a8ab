"""What a prediction leaves in its folder: detections in COCO's format with their classes, and pictures."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf

import ssl_backbones.data  # noqa: F401  registers the embedded datasets

from ..data.annotations.reading import categories_of, read_coco
from ..data.preparing import NUM_CLASSES, dataset_names
from ..drawing.instances import draw_instances, save_picture
from ..errors import InputError
from ..files import write_atomically
from . import DETECTIONS, IMAGES, PICTURES
from .inputs import Item, Source

if TYPE_CHECKING:
    from .video import VideoFile

logger = logging.getLogger(__name__)


class Classes(NamedTuple):
    """By class number, from 0: the name, and the `category_id` in COCO files."""

    names: list[str]
    ids: list[int]

    def categories(self) -> list[dict[str, Any]]:
        """As a COCO file lists them."""
        return [{"id": id_, "name": name} for id_, name in zip(self.ids, self.names, strict=True)]


def classes_of(cfg: DictConfig) -> Classes:
    """The classes of the config's datasets, whose images need not be there.

    A config that tools/export.py wrote names them itself, in `exported_classes`. Datasets that are not
    registered, or have another number of classes than the model, give "class 0", "class 1", ... with these
    numbers for ids, and a warning.

    Raises:
        InputError: neither the dataset nor the config says how many classes there are.
    """
    if exported := cfg.get("exported_classes"):
        return Classes(list(exported.names), list(exported.ids))
    counts = (OmegaConf.select(cfg, key) for key in NUM_CLASSES)
    count = next((count for count in counts if count is not None), None)
    # The model's classes are those of the training data, in its order; that need not be there.
    found = [_registered(dataset_names(cfg, role)) for role in ("train", "test")]
    known = next((classes for classes in found if classes), None)
    for classes in found:
        if classes and count in (None, len(classes.names)):
            return classes
    if count is None:
        raise InputError(
            "nothing says which classes there are: register the config's datasets, or give --data"
        )
    why = (
        "the config's datasets are not registered here, or their annotations are gone; give --data"
        if known is None
        else f"the config's data has {len(known.names)} classes, and the model {count}"
    )
    logger.warning(f"Classes have numbers for names: {why}")
    numbers = list(range(count))
    return Classes([f"class {number}" for number in numbers], numbers)


def _registered(names: Sequence[str]) -> Classes | None:
    """The classes of the first of these datasets, as its metadata or its annotations have them."""
    name = next(iter(names), None)
    if name is None or name not in MetadataCatalog.list():
        return None
    metadata = MetadataCatalog.get(name)
    class_names = metadata.get("thing_classes")
    class_of = metadata.get("thing_dataset_id_to_contiguous_id")
    # A dataset of the user's own gets its ids when it is loaded; its categories are enough.
    categories = [] if class_of else _categories_in(metadata.get("json_file"))
    if class_names is None:
        if not categories:
            return None
        class_names = [category["name"] for category in categories]
    ids = sorted(class_of, key=class_of.get) if class_of else [one["id"] for one in categories]
    if len(ids) != len(class_names):
        ids = list(range(len(class_names)))
    return Classes(list(class_names), ids)


def _categories_in(json_file: str | None) -> list[dict[str, Any]]:
    """The categories of a COCO file in the order in which Detectron2 numbers them; none without one."""
    if json_file is None:
        return []
    try:
        with PathManager.open(json_file, "rb") as file:
            return categories_of(read_coco(file.read(), json_file).content)
    except (OSError, InputError):
        return []


_LONGEST_NAME = 60  # characters of a picture's name: file systems end at 255 bytes


class Results:
    """Collects detections, and draws pictures and videos as they come; a context manager.

    Pictures are written at once, a video when it is done, and both JSON files at the end of the `with` block,
    also when Ctrl-C ends it: with what was found until then.

    Args:
        folder: made if it is not there; an earlier prediction's files of the same names are replaced.
        pictures: False to draw nothing.

    Raises (each method): InputError if something cannot be written, or would replace what no prediction
    made.
    """

    def __init__(self, folder: str | os.PathLike, classes: Classes, *, pictures: bool = True):
        self.folder = Path(folder)
        self.images: list[dict[str, Any]] = []
        self.detections: list[dict[str, Any]] = []
        self._classes, self._draws = classes, pictures
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self._video: tuple[Source, VideoFile] | None = None
        _make(self.folder, pictures)
        # Before the first picture: the folder is a prediction's from now on.
        self._write()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self._end_video()
            self._write()
        elif self._video:
            self._video[1].discard()

    def add(self, item: Item, instances: Instances) -> None:
        """Keep the detections of an image or frame, on the CPU, and draw them."""
        height, width = item.picture.shape[:2]
        image = {"id": len(self.images) + 1, "file_name": item.source.path}
        image |= {"width": width, "height": height}
        if item.frame is not None:
            image["frame"] = item.frame
        if self._draws:
            image["picture"] = self._draw(item, instances)
        self.images.append(image)
        for detection in instances_to_coco_json(instances, image["id"]):
            detection["category_id"] = self._classes.ids[detection["category_id"]]
            self.detections.append(detection)

    def _draw(self, item: Item, instances: Instances) -> str:
        """Draw into a picture or the video's next frame; returns its path below the folder."""
        if self._video and self._video[0] != item.source:
            self._end_video()
        name = self._name(item.source, ".mp4" if item.source.is_video else ".jpg")
        picture = draw_detections(item, instances, self._classes)
        if not item.source.is_video:
            save_picture(self.folder / name, picture)
            return name
        if self._video is None:
            from .video import VideoFile, frame_rate

            self._video = item.source, VideoFile(self.folder / name, frame_rate(item.source.path))
        self._video[1].add(picture)
        return name

    def _name(self, source: Source, suffix: str) -> str:
        """pictures/NAME.jpg, numbered where another source of that name came before."""
        if source.path in self._names:
            return self._names[source.path]
        stem = Path(source.path).stem[:_LONGEST_NAME]
        name, number = f"{stem}{suffix}", 1
        # In lower case: some file systems do not tell A.jpg from a.jpg.
        while name.lower() in self._taken:
            number += 1
            name = f"{stem}_{number}{suffix}"
        self._taken.add(name.lower())
        self._names[source.path] = f"{PICTURES}/{name}"
        return self._names[source.path]

    def _write(self) -> None:
        """Both JSON files."""
        catalog = {
            "info": {"description": f"the images of {DETECTIONS}"},
            "images": self.images,
            "categories": self._classes.categories(),
            "annotations": [],
        }
        _write_json(self.folder / IMAGES, catalog)
        _write_json(self.folder / DETECTIONS, self.detections)

    def _end_video(self) -> None:
        if self._video:
            _, file = self._video
            self._video = None
            file.close()


def draw_detections(item: Item, instances: Instances, classes: Classes) -> np.ndarray:
    """The picture with its detections, the surest on top: uint8 RGB."""
    instances = instances[instances.scores.argsort()]
    numbers = instances.pred_classes.tolist()
    labels = [
        f"{classes.names[number]} {score:.0%}"
        for number, score in zip(numbers, instances.scores.tolist(), strict=True)
    ]
    masks = instances.pred_masks.numpy() if instances.has("pred_masks") else None
    return draw_instances(
        item.picture,
        boxes=instances.pred_boxes.tensor.tolist(),
        classes=numbers,
        labels=labels,
        masks=masks,
    )


def _make(folder: Path, pictures: bool) -> None:
    own = folder / PICTURES
    try:
        if pictures and own.exists() and any(own.iterdir()) and not (folder / IMAGES).exists():
            raise InputError(
                f"{own} holds files that no prediction made, and might replace: give another --out"
            )
        (own if pictures else folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}; give another --out"
        ) from error


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, lambda file: file.write(json.dumps(content).encode()))
