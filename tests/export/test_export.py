"""Exported detectors find what Detectron2 finds, and a spoilt one is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import LazyConfig, instantiate

from ssl_backbones import errors
from ssl_backbones.errors import InputError
from ssl_backbones.export import elsewhere, exporting
from ssl_backbones.export.exporting import LARGEST, export

pytest.importorskip("timm")

VIT = (
    "model.backbone=null",
    "model.backbone={_target_:ssl_backbones.modeling.vit.SimpleFeaturePyramid,bottom_up:{_target_:"
    "ssl_backbones.modeling.vit.build_vit,embed_dim:32,depth:1,num_heads:1,mlp_dim:32,grid:3}}",
)
CONVNEXT = (
    "model.backbone.bottom_up=null",
    "model.backbone.bottom_up={_target_:ssl_backbones.modeling.convnext.build_convnext,depths:[1,1,1,1],"
    "dims:[8,16,32,64],out_features:[res2,res3,res4,res5]}",
)


def make_run(folder: Path, name: str, small: tuple[str, ...], *overrides: str) -> Path:
    """A run's folder with a detector that nobody trained; its scores and masks are unlike each other."""
    from ssl_backbones.engine.config import load_config

    cfg = load_config(name, [*small, *overrides])
    bottom_up = cfg.model.backbone.get("bottom_up", cfg.model.backbone)
    for part in ("stem", "stages"):
        if part in bottom_up:
            bottom_up[part].norm = "FrozenBN"
    folder.mkdir()
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    torch.manual_seed(0)
    model = instantiate(cfg.model).eval()
    model.roi_heads.box_predictor.cls_score.weight.data.mul_(20)
    model.roi_heads.mask_head.predictor.weight.data.mul_(300)
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    weights = {"method": "dino", "source": "dino.pth", "license": "Apache-2.0"}
    record = {
        "recipe": {},
        "environment": {},
        "starts": [],
        "weights": weights,
        "fingerprint": "01",
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def images(digits) -> list[str]:
    return [str(path) for path in sorted((digits / "test").glob("*.jpg"))[:3]]


@pytest.fixture(scope="module")
def vit(module_folder, digits, small) -> Path:
    return make_run(module_folder / "vit", "moco_1x", small, *VIT)


@pytest.fixture(scope="module")
def vit_export(vit, images):
    return export(vit, vit / "vit.ts", images=images)


def check(result) -> None:
    assert set(result.differences) == set(LARGEST)
    assert all(value <= LARGEST[name] for name, value in result.differences.items())
    assert len(result.controls) == 3 and all(result.controls.values())
    assert result.instances[1] > 0


@pytest.mark.parametrize(
    ("name", "overrides", "to"),
    [
        ("moco_1x", (), "torchscript"),
        ("moco_1x", (), "onnx"),
        ("projects/coco_c4/configs/moco_c4_1x.py", (), "torchscript"),
        ("moco_1x", CONVNEXT, "torchscript"),
    ],
    ids=["R50-FPN", "R50-FPN by ONNX", "C4", "ConvNeXt"],
)
def test_a_right_export_is_written(module_folder, request, small, images, name, overrides, to):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    own = small
    if "c4" in name:
        own = tuple(word for word in small if "post_nms_topk" not in word)
    run = make_run(module_folder / request.node.name, name, own, *overrides)
    result = export(run, run / f"detector{exporting.SUFFIXES[to]}", to, images=images)
    check(result)
    assert result.facts["fixed"] == ([64, 64] if to == "onnx" else None)
    assert result.images == 4


def test_a_file_says_how_good_it_is(whole, images):
    """Of a run that was trained and tested: AP as its metrics have it, within its interval."""
    run = whole(1)
    result = export(run, run.parent / "trained.ts", images=images)
    check(result)
    metrics = json.loads((run / "inference/metrics.json").read_text())
    for name, one in result.facts["average_precision"].items():
        task, _, metric = name.partition("/")
        assert one["value"] == pytest.approx(metrics[task][metric], abs=1e-6)
        assert one["low"] <= one["value"] <= one["high"]
    assert set(result.facts["average_precision"]) == {"bbox/AP", "segm/AP"}
    assert "95 % interval" in (run.parent / "MODEL_CARD.md").read_text()
    for file in ("trained.ts", "MODEL_CARD.md"):
        (run.parent / file).unlink()


def test_a_vits_graph_is_of_one_size(vit_export, vit, images):
    check(vit_export)
    assert vit_export.facts["fixed"] == [64, 64]
    _, run = elsewhere.load(vit_export.path)
    with pytest.raises(RuntimeError):
        run(np.zeros((3, 96, 96), np.float32), np.array([96, 96, 96, 96]))
    larger = export(vit, vit / "larger.ts", images=images, size=(96, 128))
    check(larger)
    assert larger.facts["fixed"] == [96, 128]


def test_the_average_precision_of_the_test_set_is_compared(vit, images, monkeypatch):
    result = export(vit, vit / "full.ts", images=images, full=True)
    assert set(result.average_precision) == {"bbox/AP", "segm/AP"}
    for theirs, ours in result.average_precision.values():
        assert ours == pytest.approx(theirs, abs=1e-2)
    monkeypatch.setattr(exporting, "LARGEST_OF_PRECISION", -1.0)
    with pytest.raises(InputError, match="the exported file has bbox/AP"):
        export(vit, vit / "fuller.ts", images=images, full=True)
    assert not (vit / "fuller.ts").exists()


def test_weights_with_all_that_is_known(vit, images):
    result = export(vit, vit / "vit.safetensors", "safetensors", images=images)
    check(result)
    facts = elsewhere.facts_of(result.path)
    assert facts["classes"] == [str(number) for number in range(10)]
    assert "build_vit" in facts["config"] and facts["backbone"]["method"] == "dino"


@pytest.mark.parametrize(
    ("part", "why"),
    [("boxes", "boxes by"), ("scores", "finds other instances|scores by"), ("masks", "masks by")],
)
def test_a_spoilt_export_is_refused_and_leaves_nothing(vit, images, monkeypatch, part, why):
    written = exporting._write

    def spoil(to, model, *rest):
        predictor = model.roi_heads.box_predictor
        layer = {"boxes": predictor.bbox_pred, "scores": predictor.cls_score}.get(
            part, model.roi_heads.mask_head.predictor
        )
        held = layer.bias.data.clone()
        layer.bias.data[: len(held) // 2] += 0.5
        written(to, model, *rest)
        layer.bias.data = held

    monkeypatch.setattr(exporting, "_write", spoil)
    with pytest.raises(InputError, match=why):
        export(vit, vit / "spoilt.ts", images=images)
    assert not list(vit.glob("spoilt*")) and not list(vit.glob(".export*"))


def test_the_card_is_one_that_the_hub_reads(vit_export, vit):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(vit / "MODEL_CARD.md")
    assert card.data.library_name == "detectron2" and card.data.license == "other"
    assert "| classes | 0, 1, 2," in card.text
    assert yaml.safe_load(card.content.split("---")[1])["model-index"][0]["results"] == []


def test_the_command(run_tool, vit, images):
    told = run_tool("tools/export.py", str(vit), str(vit / "told.ts"), "--images", *images)
    assert told.returncode == 0, told.stderr
    assert "wrong on purpose: no normalisation shows in" in told.stdout
    assert f"written: {vit / 'told.ts'}" in told.stdout
    for words, why in (
        ((str(vit), str(vit / "told.ts")), "exists; give --force"),
        ((str(vit), str(vit / "told.onnx")), "must end in .ts"),
        ((str(vit / "nothing"), str(vit / "x.ts")), "is no folder of a run"),
        ((str(vit), str(vit / "x.ts"), "--size", "60x64"), "multiples of 32"),
        ((str(vit), str(vit / "x.ts"), "--images", "none.jpg"), "there is no such file"),
        ((str(vit), str(vit / "x.ts"), "--images", __file__), "cannot be read as an image"),
        ((str(vit), str(vit / "nowhere/x.ts")), "is no folder that you may write to"),
    ):
        ended = run_tool("tools/export.py", *words)
        assert ended.returncode == 2 and why in ended.stderr and ended.stderr.count("\n") <= 2


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_the_extra_it_is_said_before_any_work(vit, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError) as refusal:
        export(vit, vit / "x.onnx", "onnx")
    assert errors._EXTRAS[refusal.value.name] == "export"


def test_another_kind_of_detector_is_refused(vit, images, monkeypatch):
    loaded = exporting._load

    def with_keypoints(*words):
        cfg, detector = loaded(*words)
        detector.model.roi_heads.keypoint_on = True
        return cfg, detector

    monkeypatch.setattr(exporting, "_load", with_keypoints)
    with pytest.raises(InputError, match="holds another detector than a Mask or Faster R-CNN"):
        export(vit, vit / "x.ts", images=images)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["torchscript", "onnx", "safetensors"])
def test_a_stranger_runs_it(vit_export, vit, images, tmp_path, number):
    """By the ten lines of the page, where neither Detectron2 nor this project can be imported."""
    if number == 1:
        pytest.importorskip("onnxruntime")
    to, suffix = list(exporting.SUFFIXES.items())[number]
    path = vit / f"stranger{suffix}" if number else Path(vit_export.path)
    if number:
        export(vit, path, to, images=images)
    page = Path(__file__).parents[2] / "docs/run_it_elsewhere.md"
    script = page.read_text().split("```python\n")[1 + number].split("```")[0]
    script = script.replace(f"detector{suffix}", str(path)).replace("street.jpg", images[0])
    blocked = "import sys; sys.modules['detectron2'] = sys.modules['ssl_backbones'] = None\n"
    (tmp_path / "ten_lines.py").write_text(blocked + script)
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "ten_lines.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    facts, run = elsewhere.load(vit_export.path)
    _, scores, classes, _ = run(*elsewhere.prepare(elsewhere.read(images[0]), facts))
    best = str((facts["classes"][classes[0]], round(float(scores[0]), 3)))
    assert (best if number < 2 else "dino") in done.stdout


def test_predict_takes_it(run_tool, vit_export, vit, images, tmp_path):
    """The same detections as of the checkpoint by its config."""
    found = []
    weights = export(vit, vit / "predicted.safetensors", "safetensors", images=images).path
    for name, words in (
        ("exported", ("--weights", vit_export.path)),
        ("weights", ("--weights", weights, "--opts", "train.device=cpu")),
        (
            "run",
            ("--weights", str(vit / "model_final.pth"), "--config-file", str(vit / "config.yaml")),
        ),
    ):
        out = tmp_path / name
        told = run_tool(
            "tools/predict.py",
            *images,
            "--no-pictures",
            "--threshold",
            "0.05",
            "--out",
            str(out),
            *words,
        )
        assert told.returncode == 0, told.stderr
        found.append(json.loads((out / "coco_instances_results.json").read_text()))
    exported, weights, run = found
    assert weights == run
    assert len(exported) == len(run) > 0
    for one, other in zip(exported, run, strict=True):
        assert one["category_id"] == other["category_id"]
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1e-2)
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-4)
        assert one["segmentation"] == other["segmentation"]
    ended = run_tool(
        *(
            "tools/predict.py",
            images[0],
            "--out",
            str(tmp_path / "x"),
            "--weights",
            vit_export.path,
        ),
        *("--config-file", "moco_1x"),
    )
    assert ended.returncode == 2 and "--config-file is of a run's checkpoint" in ended.stderr
    ended = run_tool(
        "tools/predict.py", images[0], "--out", str(tmp_path / "x"), "--weights", "a.pth"
    )
    assert ended.returncode == 2 and "--config-file is missing" in ended.stderr
