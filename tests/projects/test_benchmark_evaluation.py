"""The rows of average precision: ours is compared with pycocotools, whatever the opponent is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ssl_backbones import compat

sys.path.append(str(Path(__file__).parents[2]))

from projects.benchmarks.row import Disagreement
from projects.benchmarks.rows import evaluation


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_the_last_bit_is_pycocotools(task, is_compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "has_compiled_coco_evaluation", lambda: is_compiled)
    comparison = evaluation.prepare(task)(tmp_path, True)
    ours, _ = comparison.ours()
    assert 0.05 < ours[0] < 0.95
    nearly = [ours[0] + 1e-13, *ours[1:]]
    comparison.check(ours, ours)
    pairs = [([ours[0] + 1e-6, *ours[1:]], ours), (ours, nearly)]
    if is_compiled:
        # Both are off by the same; and Detectron2's COCOeval_opt may be off by so little.
        pairs.append((nearly, nearly))
        comparison.check(nearly, ours)
    for stock, other in pairs:
        with pytest.raises(Disagreement, match="AP: "):
            comparison.check(stock, other)
