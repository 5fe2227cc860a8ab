"""The numbers of TIDE's own library for small scenes.

Recorded in tests/report/analysis/tide.json, since the library needs pandas, seaborn and OpenCV:

    pip install tidecv==1.0.1
    python tests/tide_reference.py
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from coco_scenes import scene

FILE = Path(__file__).parent / "report" / "analysis" / "tide.json"


def confused_scene(seed):
    """As `scene`, with classes taken for each other and detections of which nothing is near."""
    dataset, results = scene(seed, images=5, classes=4)
    random = np.random.default_rng(seed)
    for found in results:
        if random.random() < 0.3:
            found["category_id"] = int(random.integers(1, 4))
    # An image without detections, and fewer digits than a float has: the file is to be small.
    results = [one for one in results if one["image_id"] != 2][::2]
    for one in (*dataset["annotations"], *results):
        one["bbox"] = [round(value, 2) for value in one["bbox"]]
        if isinstance(one["segmentation"], list):
            one["segmentation"] = [[round(v, 2) for v in part] for part in one["segmentation"]]
    return dataset, results


def tide_numbers(dataset, results, task):
    """Gains in percent points and counts by type; the type of each result; the ids of missed objects."""
    from tidecv import TIDE, datasets

    with tempfile.TemporaryDirectory() as folder:
        truth, found = Path(folder, "truth.json"), Path(folder, "found.json")
        truth.write_text(json.dumps(dataset))
        found.write_text(json.dumps(results))
        tide = TIDE(mode=TIDE.BOX if task == "bbox" else TIDE.MASK)
        run = tide.evaluate(datasets.COCO(truth), datasets.COCOResult(found), name="run")
    gains = tide.get_main_errors()["run"] | tide.get_special_errors()["run"]
    types = [None] * len(results)
    missed = []
    for error in run.errors:
        if error.short_name == "Miss":
            missed.append(dataset["annotations"][error.gt["_id"]]["id"])
        else:
            types[error.pred["_id"]] = error.short_name
    return {
        "gains": {name: float(gain) for name, gain in gains.items()},
        "counts": {kind.short_name: count for kind, count in run.count_errors().items()},
        "types": types,
        "missed": sorted(missed),
    }


def main():
    import tidecv

    scenes = []
    # Together they have every type, each with a gain.
    for seed in (7, 15):
        dataset, results = confused_scene(seed)
        numbers = {task: tide_numbers(dataset, results, task) for task in ("bbox", "segm")}
        scenes.append({"dataset": dataset, "results": results, "tide": numbers})
    content = {
        "source": f"tidecv {tidecv.__version__}",
        "command": "python tests/tide_reference.py",
        "scenes": scenes,
    }
    FILE.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
