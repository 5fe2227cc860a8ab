"""YOLO, VOC and labelme folders: to the bits of COCO files that say the same, and on to a report."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest
from labelme_files import write_labelme
from own_data import results, same
from running import output
from voc_files import write_voc
from yolo_files import write_yolo

REPORT = Path(__file__).parents[2] / "tools" / "report.py"
FEW = ("train.max_iter=2", "train.eval_period=0", "train.draw_batches=0")
WRITERS = {
    "yolo boxes": partial(write_yolo, segments=False),
    "yolo segments": partial(write_yolo, segments=True),
    "voc": write_voc,
    "labelme": write_labelme,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_it_trains_to_the_bits_of_coco_that_says_the_same(runs, digits, kind, tmp_path, capsys):
    labelled, coco = WRITERS[kind](digits, tmp_path / "data")
    run, by_coco = tmp_path / "run", tmp_path / "by_coco"
    assert runs.run(run, *FEW, data=str(labelled)) == [0], output(run)
    assert runs.run(by_coco, *FEW, data=str(coco)) == [0], output(by_coco)
    same(results(run), results(by_coco))
    spec = importlib.util.spec_from_file_location("report", REPORT)
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    assert report.main([str(run)]) == 0
    assert "Box AP" in capsys.readouterr().out and (run / "report.html").is_file()
