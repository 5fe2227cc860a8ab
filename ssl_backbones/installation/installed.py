"""Does the Detectron2 that Python finds work? A Mask R-CNN is built and run to know."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_UNKNOWN = ("of unknown version", "a folder on Python's path, not installed by pip")


@dataclass(frozen=True)
class InstalledDetectron2:
    """The Detectron2 that `import detectron2` finds."""

    version: str
    origin: str
    location: Path
    failure: str  # why it does not work, in one line; "" when it does

    @property
    def pure(self) -> bool:
        """Whether it was built here: only such a one may be replaced without asking."""
        return "+pure" in self.version

    def __str__(self) -> str:
        return f"detectron2 {self.version} at {self.location} ({self.origin})"


def find_detectron2() -> InstalledDetectron2 | None:
    """The Detectron2 that a new Python process imports, tried for real; None when there is none."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("detectron2")
    # A mere folder of that name, without __init__.py, has a spec and no origin.
    if spec is None or spec.origin is None:
        return None
    location = Path(spec.origin).parent
    return InstalledDetectron2(*_version_and_origin(location), location, _try_in_new_process())


def run_mask_rcnn() -> None:
    """Build the model zoo's Mask R-CNN R50-FPN with random weights and run it on one 64x64 image.

    Raises whatever does not work.
    """
    import torch
    from detectron2 import model_zoo
    from detectron2.config import instantiate

    config = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py").model
    # Frozen statistics normalise nothing when the weights are random, and the features overflow.
    config.backbone.bottom_up.stem.norm = config.backbone.bottom_up.stages.norm = "GN"
    config.proposal_generator.post_nms_topk = (50, 50)
    # Random weights give every class the same low score, and the mask head runs on detections only.
    config.roi_heads.box_predictor.test_score_thresh = 0.0
    config.roi_heads.box_predictor.test_topk_per_image = 5
    torch.manual_seed(0)
    model = instantiate(config).eval()
    with torch.no_grad():
        instances = model([{"image": torch.rand(3, 64, 64) * 255}])[0]["instances"]
    if len(instances) == 0 or instances.pred_masks.shape[1:] != (64, 64):
        raise RuntimeError(f"Mask R-CNN ran and gave {instances}")


def _version_and_origin(location: Path) -> tuple[str, str]:
    """What pip knows of the package at `location`, if that is the one that pip installed."""
    try:
        distribution = importlib.metadata.distribution("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN
    record = json.loads(distribution.read_text("direct_url.json") or "{}")
    editable = record.get("dir_info", {}).get("editable", False)
    installed = Path(distribution.locate_file("detectron2")).resolve()
    if not editable and location.resolve() != installed:
        return _UNKNOWN
    origin = f"installed from {record['url']}" if record else "installed by pip"
    return distribution.version, origin


def _try_in_new_process() -> str:
    """Run the check where nothing is imported yet; the reason in one line if it fails."""
    checkout = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.append({checkout!r}); "
        f"from {__name__} import run_mask_rcnn; run_mask_rcnn()"
    )
    # Run in an empty folder: a checkout of Detectron2 in the current one would be imported instead.
    with tempfile.TemporaryDirectory() as empty:
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=empty,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    if result.returncode == 0:
        return ""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"Python ended with status {result.returncode}"
