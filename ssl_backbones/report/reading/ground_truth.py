"""The annotations that runs were tested on, and which of their images a run was tested on."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InputError
from ...hashing import sha256_of
from ..content import ImageSource
from ..wording import encodable

if TYPE_CHECKING:
    from pycocotools.coco import COCO


Categories = Sequence[Mapping[str, Any]] | None


class GroundTruth(NamedTuple):
    """A test set.

    Attributes:
        path: of the COCO JSON.
        has_masks: whether every object has one.
    """

    path: str
    coco: COCO
    images: ImageSource
    has_masks: bool

    def says_the_same_as(self, other: GroundTruth) -> bool:
        """Whether both have the same images, classes and objects; to be asked before an evaluation.

        pycocotools changes masks in place. Detectron2 writes the time into a file's head, so that no hash of
        the file would do.
        """
        parts = ("images", "categories", "annotations")
        return all(self.coco.dataset[part] == other.coco.dataset[part] for part in parts)


class GroundTruths:
    """Reads each test set once, whichever runs were tested on it.

    Args:
        annotations: the COCO JSON of every run, in place of what Detectron2's catalogs say.
        image_root: the folder of the images, likewise.

    Attributes:
        name: of the annotations that were given; "" where none were.

    Raises:
        InputError: `image_root` is no folder.
    """

    def __init__(
        self,
        annotations: str | os.PathLike | None = None,
        image_root: str | os.PathLike | None = None,
    ):
        if image_root is not None and not Path(image_root).is_dir():
            raise InputError(f"there is no folder of images {image_root}: correct --images")
        self._annotations, self._image_root = annotations, image_root
        self.name = Path(annotations).stem if annotations is not None else ""
        self._known: dict[tuple[str, str], GroundTruth] = {}
        self._by_dataset: dict[str, list[GroundTruth]] = {}
        self._looked: dict = {}

    def of(self, dataset: str, folder: str | os.PathLike) -> GroundTruth:
        """The test set of a run; the same object for runs on the same images of a dataset of the same name.

        Args:
            dataset: its name in Detectron2's catalogs; "" where it is not known.
            folder: the run's, in which Detectron2 leaves annotations that it had to write.

        Raises:
            InputError: it is not known where the annotations are, or they cannot be used.
        """
        path, root, categories = self._files_of(dataset, Path(folder))
        if self._image_root is not None:
            root = os.fspath(self._image_root)
        key = (os.path.realpath(path), root, repr(categories))
        if key not in self._known:
            truth = read_ground_truth(path, root, categories)
            alike = self._by_dataset.setdefault(dataset, [])
            same = next((known for known in alike if known.says_the_same_as(truth)), truth)
            if same is truth:
                alike.append(truth)
            self._known[key] = same
        return self._known[key]

    def _files_of(self, dataset: str, folder: Path) -> tuple[str, str, Categories]:
        """Where annotations and images are, and the categories that the run had of them."""
        from ...data import mend_of_missing
        from ...data.own_data import found_again, place_of, read_record

        registered = _registered(dataset)
        record = read_record(folder)
        entries = [*record.get("evaluated", ()), *record.get("test", ())]
        recorded = next((entry for entry in entries if entry["name"] == dataset), None)
        if recorded and self._annotations is None:
            recorded = found_again(recorded, self._looked)
        categories = recorded["categories"] if recorded else None
        if self._annotations is not None:
            path = os.fspath(self._annotations)
            return path, registered[1] if registered else os.path.dirname(path), categories
        if recorded and os.path.isfile(recorded["annotations"]):
            path = recorded["annotations"]
            if sha256_of(path) != recorded["sha256"]:
                raise InputError(
                    f"the annotations of {dataset} at {place_of(recorded)} have changed since the run was "
                    "tested on them; put the old ones back, or give --annotations and --images"
                )
            return path, recorded["images"], categories
        if registered and os.path.isfile(registered[0]):
            return *registered, categories
        for path in folder.glob("inference*"):
            written = path / f"{dataset}_coco_format.json"
            if dataset and written.is_file():
                return str(written), "", None
        if not dataset:
            raise InputError(
                "it is not known on which dataset; give its annotations by --annotations and --images"
            )
        if recorded:
            raise InputError(
                f"the annotations of {dataset} are no longer at {place_of(recorded)}; say by --data "
                "where the data is now, or give --annotations and --images"
            )
        if registered:
            raise InputError(
                f"the annotations of {dataset} are not at {registered[0]}; {mend_of_missing(registered[0])}, "
                "or give --annotations and --images"
            )
        raise InputError(
            f"the dataset {dataset} is not registered here; give its annotations by --annotations and "
            "--images"
        )


def read_ground_truth(
    path: str | os.PathLike, image_root: str | os.PathLike, categories: Categories = None
) -> GroundTruth:
    """Read COCO annotations.

    Args:
        categories: those that a run had of them, by name; None for the file's own.

    Raises:
        InputError: the file cannot be read or contradicts itself.
    """
    from ...data.annotations.examining import examine
    from ...data.annotations.reading import categories_of, read_coco
    from ...data.preparing import in_categories
    from ...fast.annotations.coco_json import collector_paused

    path, where = os.fspath(path), f"annotations {path}"
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from error
    with collector_paused():
        content, _ = read_coco(data, where)
        if not content.get("annotations"):
            # Nothing is to be found, which a report says of each metric.
            content.pop("annotations", None)
        if problems := examine(content, where, evaluated=True).problems:
            raise InputError(problems[0])
        if categories is not None:
            content, _ = in_categories(content, categories)
    ids = {image["id"] for image in content["images"]}
    # Detectron2 ignores the others as well.
    annotations = [a for a in content.get("annotations", []) if a["image_id"] in ids]
    coco = _coco({**content, "annotations": annotations})
    images = ImageSource(
        files={
            image["id"]: os.path.join(image_root, encodable(str(image["file_name"])))
            for image in content["images"]
            if "file_name" in image
        },
        annotations={image_id: coco.imgToAnns.get(image_id, []) for image_id in coco.imgs},
        # No two are the same: those of one name in the file have their ids behind it.
        class_names={one["id"]: one["name"] for one in categories_of(content)},
    )
    has_masks = all(found.get("segmentation") for found in annotations)
    return GroundTruth(path, coco, images, has_masks)


def evaluated_images(truth: GroundTruth, facts: Mapping[str, Any]) -> Sequence[Any] | None:
    """The ids of the images that an evaluation was of; None for all.

    Args:
        facts: of the evaluation, as `ssl_backbones.evaluation.metrics.read_metrics` gives them.

    Raises:
        InputError: it was of a part of another number of images than `truth` has, so that nobody knows which.
    """
    from ...evaluation.test_set import evenly_spread

    count, size = facts.get("images"), facts.get("images_in_dataset")
    if not isinstance(count, int) or not isinstance(size, int) or count == size:
        return None
    if size != len(truth.coco.imgs):
        raise InputError(
            f"{count} of {size} images were evaluated, and {truth.path} has {len(truth.coco.imgs)}: which "
            "ones is not known"
        )
    # The order in which Detectron2 lists a COCO file's images.
    ids = sorted(truth.coco.imgs)
    return [ids[index] for index in evenly_spread(size, count)]


def _registered(dataset: str) -> tuple[str, str] | None:
    """Annotations and images as Detectron2's catalogs have them; None of a dataset that they have not."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    import ssl_backbones.data  # noqa: F401  registers the embedded datasets

    if not dataset or dataset not in DatasetCatalog:
        return None
    metadata = MetadataCatalog.get(dataset)
    path = metadata.get("json_file")
    return (path, metadata.get("image_root") or "") if path else None


def _coco(content: Mapping[str, Any]) -> COCO:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
