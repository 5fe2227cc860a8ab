"""Exported detectors find what Detectron2 finds, and a spoilt one is refused."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge
from omegaconf import OmegaConf
from PIL import Image
from safetensors import safe_open
from torch import nn
from torchvision.ops import boxes as box_ops

from ssl_backbones import errors
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.recipe import recipe
from ssl_backbones.errors import InputError
from ssl_backbones.export import comparison, elsewhere, exporting, graph
from ssl_backbones.export.comparison import LARGEST, difference_of
from ssl_backbones.export.exporting import export
from ssl_backbones.export.running import ExportedDetector
from ssl_backbones.prediction.detector import Detector
from ssl_backbones.prediction.output import classes_of
from ssl_backbones.tools import predict
from ssl_backbones.tools.export import main

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
    cfg = load_config(name, [*small, *overrides])
    folder.mkdir()
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    torch.manual_seed(0)
    model = instantiate(cfg.model).eval()
    model.roi_heads.box_predictor.cls_score.weight.data.mul_(20)
    model.roi_heads.mask_head.predictor.weight.data.mul_(300)
    model.roi_heads.box_predictor.bbox_pred.weight.data.mul_(10)  # out of the image, some of them
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    weights = {"method": "dino", "source": "dino.pth", "license": "Apache-2.0"}
    record = {
        "recipe": recipe(cfg, slots=8),
        "git": {},
        "environment": {},
        "starts": [],
        "weights": weights,
        "fingerprint": "01",
        "command_line": ["tools/train_net.py", "--config-file", "configs/moco_1x.py"],
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def images(digits, module_folder) -> list[str]:
    """Wider, higher and square: a swap of sides shows."""
    paths = []
    for number, name in enumerate(sorted((digits / "test").glob("*.jpg"))[:3]):
        paths.append(str(module_folder / f"{number}.png"))
        with Image.open(name) as image:
            sides = ((1.0, 0.6), (0.7, 1.0), (1.0, 1.0))[number]
            image.crop((0, 0, *(int(part * 64) for part in sides))).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def vit(module_folder, digits, small) -> Path:
    return make_run(module_folder / "vit", "moco_1x", small, *VIT)


@pytest.fixture(scope="module")
def vit_export(vit, images):
    return export(vit, vit / "vit.ts", images=images, full=True, force=True)


@pytest.fixture(scope="module")
def vit_weights(vit, images):
    return export(vit, vit / "vit.safetensors", "safetensors", images=images, force=True)


def check(result) -> None:
    assert set(result.differences) == set(LARGEST)
    assert all(value <= LARGEST[name] for name, value in result.differences.items())
    assert len(result.controls) == 3 and all(result.controls.values())
    # Beside each image once, the first at other sizes, and with all and none of its instances.
    more = 2 if result.facts["fixed"] else 4
    assert min(result.counts) == 0 and len(result.counts) == result.images + more


KINDS = {
    "frozen R50-FPN": ("projects/frozen/configs/moco_frozen_1x.py", (), "torchscript"),
    "R50-FPN by ONNX": ("moco_1x", ("model.roi_heads.mask_head.conv_norm=GN",), "onnx"),
    "C4": ("projects/coco_c4/configs/moco_c4_1x.py", (), "torchscript"),
    "ConvNeXt": ("moco_1x", CONVNEXT, "torchscript"),
}


@pytest.fixture(scope="module")
def exported(module_folder, small, images):
    """Of each kind one, when it is first asked for."""

    @functools.cache
    def kind(which: str) -> exporting.Export:
        name, overrides, to = KINDS[which]
        run = make_run(module_folder / which, name, small, *overrides)
        return export(run, run / f"detector{exporting.SUFFIXES[to]}", to, images=images)

    return kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_export_is_written(exported, kind):
    if "ONNX" in kind:
        pytest.importorskip("onnxruntime")
    result = exported(kind)
    check(result)
    assert result.facts["fixed"] == ([96, 128] if "ONNX" in kind else None)
    assert result.images == 3
    # As many as Detectron2 keeps, where so many of an untrained detector's boxes lie in the image.
    most = max(result.counts)
    assert most == 100 if kind in ("frozen R50-FPN", "ConvNeXt") else most > 30


def test_a_file_says_how_good_it_is(module_folder, whole, images):
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
    hub = pytest.importorskip("huggingface_hub")
    read = hub.ModelCard.load(run.parent / "MODEL_CARD.md").data.eval_results
    assert {one.metric_type: one.metric_value for one in read} == {
        name: pytest.approx(one["value"]) for name, one in result.facts["average_precision"].items()
    }
    # Another checkpoint is not what was tested.
    other = shutil.copy(run / "model_final.pth", module_folder / "other.pth")
    result = export(
        run, module_folder / "o.safetensors", "safetensors", weights=str(other), images=images
    )
    assert result.facts["average_precision"] == {}
    for file in ("trained.ts", "MODEL_CARD.md"):
        (run.parent / file).unlink()


def test_a_vits_graph_is_of_one_size(vit_export, vit, images):
    check(vit_export)
    assert vit_export.facts["fixed"] == [96, 128]
    _, run = elsewhere.load(vit_export.path)
    with pytest.raises(Exception, match="takes images of 96 x 128: pad with its mean"):
        run(np.zeros((3, 96, 96), np.float32), np.array([96] * 4), np.array(0.05, np.float32))
    other = export(vit, vit / "other.ts", images=images, size=(96, 96), force=True)
    check(other)
    assert other.facts["fixed"] == [96, 96]


def test_the_average_precision_of_the_test_set_is_compared(vit_export, vit, images, monkeypatch):
    assert set(vit_export.average_precision) == {"bbox/AP", "segm/AP"}
    for theirs, ours in vit_export.average_precision.values():
        assert ours == pytest.approx(theirs, abs=1e-2)
    monkeypatch.setattr(comparison, "LARGEST_OF_PRECISION", -1.0)
    monkeypatch.setattr(exporting, "instantiate", lambda cfg: instantiate(cfg)[:2])
    with pytest.raises(InputError, match="the exported file has bbox/AP"):
        path = vit / "fuller.safetensors"
        export(vit, path, "safetensors", images=images, full=True, force=True)
    assert not path.exists()


def test_weights_with_all_that_is_known(vit_weights, vit):
    check(vit_weights)
    with safe_open(vit_weights.path, "np") as file:
        facts = json.loads(file.metadata()[elsewhere.FACTS])
    assert facts["classes"] == [str(number) for number in range(10)]
    assert facts["backbone"]["method"] == "dino" and facts["fixed"] is None
    assert facts["recipe"] == "moco_1x"
    assert "dataloader.train.total_batch_size: 2 for 16" in facts["deviations"]
    config = yaml.unsafe_load(facts["config"])
    assert config["model"]["backbone"]["bottom_up"]["_target_"].endswith("build_vit")
    assert str(vit) not in facts["config"]
    assert (facts["order"], facts["mean"], facts["std"]) == (
        config["dataloader"]["test"]["mapper"]["image_format"],
        config["model"]["pixel_mean"],
        config["model"]["pixel_std"],
    )
    # A stranger has no dataset of these names.
    config["dataloader"]["test"]["dataset"]["names"] = "of_somebody"
    assert (
        classes_of(OmegaConf.create(config, flags={"allow_objects": True})).names
        == facts["classes"]
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", 5),
        ("category_ids", [1]),
        ("fixed", [96]),
        ("fixed", "96"),
        ("mean", "x"),
        ("threshold", "x"),
        (None, [1]),
        (None, "no JSON"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused(vit_export, monkeypatch, name, value):
    """In one line, and before any image."""
    facts, run = elsewhere.load(vit_export.path)
    altered = {**facts, name: value} if name else value
    monkeypatch.setattr(elsewhere, "load", lambda path: (altered, run))
    with pytest.raises(
        InputError, match=r"is damaged or no file of tools/export.py \(.*\): export"
    ):
        ExportedDetector(vit_export.path)


def test_a_damaged_file_is_refused(vit_export, images, tmp_path, monkeypatch):
    """One bit of a weight, which torch's own reader takes."""
    content = bytearray(Path(vit_export.path).read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "damaged.ts"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged or no file of .*checksum is wrong"):
        ExportedDetector(str(path))
    with pytest.raises(InputError, match=r"there is no file .*none\.ts"):
        ExportedDetector(str(tmp_path / "none.ts"))
    facts, run = elsewhere.load(vit_export.path)
    altered = {**facts, "classes": ["one"], "category_ids": [1]}
    monkeypatch.setattr(elsewhere, "load", lambda path: (altered, run))
    detector = ExportedDetector(vit_export.path)
    image = detector.mapper({"file_name": images[0], "height": 38, "width": 64})
    with pytest.raises(InputError, match="it finds classes that it does not name"):
        detector([image])


def test_the_file_runs_where_nothing_of_ours_is(monkeypatch, tmp_path):
    def load(path):
        for name in ("detectron2", "ssl_backbones"):
            with pytest.raises(ImportError):
                __import__(name)
        return {}, None

    (tmp_path / "jobs.json").write_text("[]")
    monkeypatch.setattr(elsewhere, "load", load)
    with mock.patch.dict(sys.modules):
        elsewhere.main("any", str(tmp_path / "jobs.json"), str(tmp_path))


def test_boxes_are_chosen_as_without_a_trace(monkeypatch):
    """A trace takes torchvision's way for few boxes, which rounds otherwise, for any number."""
    random = torch.Generator().manual_seed(0)

    def given(number: int) -> tuple[torch.Tensor, ...]:
        corners = torch.rand(number, 2, generator=random) * 1300
        sides = torch.rand(number, 2, generator=random) * 40 + 1
        scores = torch.rand(number, generator=random)
        classes = torch.randint(0, 80, (number,), generator=random)
        return torch.cat([corners, corners + sides], 1), scores, classes

    class Chosen(nn.Module):
        def forward(self, *boxes):
            return box_ops.batched_nms(*boxes, 0.5)

    monkeypatch.setattr(graph, "Graph", lambda model, fixed: model)
    traced = graph.trace(Chosen(), given(9))
    many = given(60_000)
    assert torch.equal(traced(*many), box_ops.batched_nms(*many, 0.5))
    assert not torch.equal(traced(*many), box_ops._batched_nms_coordinate_trick(*many, 0.5))


def test_an_image_is_prepared_as_detectron2_prepares_it(vit, tmp_path):
    """Upright, in any mode, and made to fit."""
    truth = comparison.Truth(load_config(str(vit / "config.yaml")), nn.Module(), [96, 128])
    facts = {"fixed": [96, 128], "order": "RGB", "mean": [1.0, 2.0, 3.0], "threshold": 0.5}
    random = np.random.default_rng(0)
    for number, sides in enumerate([(101, 77), (31, 97), (131, 96), (64, 64), (255, 3)]):
        pixels = random.integers(0, 256, (*sides[::-1], 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 1 + 5 * (number % 2)  # every other lies on its side
        path = str(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(path, exif=exif)
        record = truth.mapped(comparison.Job(path))
        whole, sizes, _ = elsewhere.prepare(elsewhere.read(path), facts)
        assert [*sizes] == [record["height"], record["width"], *record["image"].shape[1:]]
        assert np.array_equal(whole[:, : sizes[2], : sizes[3]], record["image"])
        assert (whole[2, sizes[2] :] == 3).all() and (whole[0, :, sizes[3] :] == 1).all()


def test_differences():
    """By hand: an instance belongs to the nearest box of its class, in whatever order they come."""
    boxes = np.array([[0, 0, 4, 4], [2, 2, 8, 8], [0, 0, 4, 4.5]], np.float32)
    masks = np.zeros((3, 10, 10), dtype=bool)
    scores, classes = np.array([0.9, 0.5, 0.5], np.float32), np.array([0, 0, 1])
    found = elsewhere.Found(boxes, scores, classes, masks)
    assert difference_of(found, found) == {"instances": 0, "boxes": 0, "scores": 0, "masks": 0}
    turned = elsewhere.Found(*(part[::-1].copy() for part in found))
    turned.boxes[0, 1] += 0.25
    turned.masks[1, 0, :5] = True
    expected = {"instances": 0, "boxes": 0.25, "scores": 0, "masks": 0.05}
    assert difference_of(found, turned) == pytest.approx(expected)
    fewer = elsewhere.Found(*(part[:2] for part in found))
    assert difference_of(found, fewer) == {"instances": 1}
    assert difference_of(fewer, found) == {"instances": 1}
    other = found._replace(classes=np.array([0, 0, 0]))
    assert difference_of(found, other)["instances"] == 1
    nothing = elsewhere.Found(*(part[:0] for part in found))
    assert difference_of(nothing, nothing) == {"instances": 0}
    turned = found._replace(masks=masks[:, :9])
    assert difference_of(found, turned)["masks"] == np.inf
    broken = found._replace(boxes=np.full_like(boxes, np.nan))
    assert difference_of(found, broken)["boxes"] == np.inf


@pytest.mark.parametrize(("short", "longest"), [(800, 1333), (600, 999), (64, 1333)])
def test_sizes_are_detectron2s(short, longest):
    """To the pixel, where both steps of the rule round too."""
    for width in range(1, 1500, 31):
        for height in range(1, 1500, 7):
            expected = ResizeShortestEdge.get_output_shape(height, width, short, longest)
            assert elsewhere.shape(width, height, short, longest) == [*expected[::-1]]


def test_grey_images_have_no_order_of_channels(vit, images, tmp_path):
    """What cannot show is no reason to refuse."""
    grey = []
    for number, path in enumerate(images):
        grey.append(str(tmp_path / f"{number}.png"))
        Image.open(path).convert("L").save(grey[-1])
    result = export(vit, vit / "grey.safetensors", "safetensors", images=grey, force=True)
    assert set(result.controls) == {"no normalisation", "another score threshold"}


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("boxes", "(instances|boxes) differ by"),
        ("scores", "(instances|boxes|scores) differ by"),
        ("masks", "masks differ by"),
        ("order", "(instances|boxes) differ by"),
    ],
)
def test_a_spoilt_export_is_refused_and_leaves_nothing(vit, images, monkeypatch, part, why):
    content = exporting._content

    def spoil(to, model, facts, first):
        if part == "order":  # what is said of the input, and nothing of the model
            return content(to, model, {**facts, "order": "BGR"}, first)
        predictor = model.roi_heads.box_predictor
        layer = {"boxes": predictor.bbox_pred, "scores": predictor.cls_score}.get(
            part, model.roi_heads.mask_head.predictor
        )
        held = layer.bias.data.clone()
        layer.bias.data[: len(held) // 2] += 0.5
        try:
            return content(to, model, facts, first)
        finally:
            layer.bias.data = held

    monkeypatch.setattr(exporting, "_content", spoil)
    with pytest.raises(InputError, match=why):
        export(vit, vit / "spoilt.ts", images=images, force=True)
    assert not list(vit.glob("spoilt*")) and not list(vit.glob(".export*"))


def test_what_cannot_be_compared_is_refused(vit, images, monkeypatch):
    """Nothing is found, a mistake shows nowhere, the test's images are made in a way that no file says."""
    model_of = exporting.Detector

    def strict(cfg, path):
        found = model_of(cfg, path)
        found.model.roi_heads.box_predictor.test_score_thresh = 1.0
        return found

    monkeypatch.setattr(exporting, "Detector", strict)
    with pytest.raises(InputError, match="finds nothing in 3 images"):
        export(vit, vit / "x.safetensors", "safetensors", images=images, force=True)
    monkeypatch.setattr(exporting, "Detector", model_of)
    monkeypatch.setattr(comparison, "LARGEST", dict.fromkeys(LARGEST, np.inf))
    with pytest.raises(InputError, match="channels in the other order shows in none"):
        export(vit, vit / "x.safetensors", "safetensors", images=images, force=True)
    read = exporting.load_config

    def nearest(file):
        cfg = read(file)
        cfg.dataloader.test.mapper.augmentations[0].interp = Image.NEAREST
        return cfg

    monkeypatch.setattr(exporting, "load_config", nearest)
    with pytest.raises(InputError, match="otherwise than by one bilinear ResizeShortestEdge"):
        export(vit, vit / "x.ts", images=images, force=True)
    assert not list(vit.glob("x.*"))


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", 1.0), ("short", 50), ("long", 70), ("order", "BGR")]
)
def test_what_a_file_says_wrongly_shows(exported, images, name, value):
    """Detectron2's side takes none of it from the file."""
    path = Path(exported("frozen R50-FPN").path)
    cfg = load_config(str(path.parent / "config.yaml"), ["train.device=cpu"])
    truth = comparison.Truth(cfg, Detector(cfg, str(path.parent / "model_final.pth")).model, None)
    facts, run = elsewhere.load(str(path))
    (theirs,) = truth.ask([comparison.Job(images[0])])

    def ours(facts):
        return run(*elsewhere.prepare(elsewhere.read(images[0]), facts))

    assert all(one <= LARGEST[key] for key, one in difference_of(theirs, ours(facts)).items())
    differences = difference_of(theirs, ours({**facts, name: value}))
    assert any(one > LARGEST[key] for key, one in differences.items())


def test_the_card_is_one_that_the_hub_reads(vit_export, vit):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(vit / "MODEL_CARD.md")
    assert card.data.library_name in ("pytorch", "detectron2") and "Apache-2.0" in card.text
    assert "| classes | 0, 1, 2," in card.text
    assert yaml.safe_load(card.content.split("---")[1])["model-index"][0]["name"]


def test_the_command(run_tool, vit, images, capsys, tmp_path):
    words = (str(vit), str(vit / "told.ts"), "--force", "--images", *images)
    told = run_tool("tools/export.py", *words)
    assert told.returncode == 0, told.stderr
    assert "wrong on purpose: no normalisation shows " in told.stdout
    assert "be surer with 20" in told.stdout
    assert f"written: {vit / 'told.ts'}" in told.stdout
    for words, why in (
        ((str(vit), str(vit / "told.ts")), "told.ts exists; give another folder, or --force"),
        ((str(vit), str(vit / "x.ts")), "MODEL_CARD.md exists; give another folder"),
        ((str(vit), str(vit / "told.onnx")), "must end in .ts"),
        ((str(vit / "nothing"), str(vit / "x.ts")), "is no folder of a run"),
        ((str(vit), str(vit / "x.ts"), "--size", "60", "64"), "in multiples of 32"),
        ((str(vit), str(vit / "x.ts"), "--images", "none.jpg"), "there is no such file or folder"),
        (
            (str(vit), str(vit / "x.ts"), "--force", "--images", __file__),
            "or not an image that Pillow knows",
        ),
        ((str(vit), str(vit / "x.ts"), "--force", "--weights", "no.pth"), "no.pth is not there"),
        ((str(vit), str(vit / "nowhere/x.ts")), "is no folder that you may write to"),
    ):
        assert main(list(words)) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert told[-1].startswith("error: ") and why in told[-1]
        assert all(line.endswith(" ...") for line in told[:-1])
    shutil.copytree(vit, tmp_path / "damaged")
    (tmp_path / "damaged/run.json").write_text("{")
    words = [str(tmp_path / "damaged"), str(tmp_path / "x.ts"), "--images", __file__]
    assert main(words) == 2
    assert "What was run is not known" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_the_extra_it_is_said_before_any_work(vit, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError) as refusal:
        export(vit, vit / "x.onnx", "onnx", force=True)
    assert errors._EXTRAS[refusal.value.name] == "export"


def test_another_kind_of_detector_is_refused(vit, images, monkeypatch):
    built = exporting.Detector

    def with_keypoints(*words):
        detector = built(*words)
        detector.model.roi_heads.keypoint_on = True
        return detector

    monkeypatch.setattr(exporting, "Detector", with_keypoints)
    with pytest.raises(InputError, match="holds another detector than a Mask or Faster R-CNN"):
        export(vit, vit / "x.ts", images=images, force=True)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["torchscript", "onnx", "safetensors"])
def test_a_stranger_runs_it(exported, request, images, tmp_path, number):
    """By the lines of the page, where neither Detectron2 nor this project can be imported."""
    if number == 1:
        pytest.importorskip("onnxruntime")
    kind = [*KINDS][number]
    path = (exported(kind) if number < 2 else request.getfixturevalue("vit_weights")).path
    street = images[0]
    page = Path(__file__).parents[2] / "docs/run_it_elsewhere.md"
    script = page.read_text().split("```python\n")[1 + number].split("```")[0]
    script = script.replace(f"detector{Path(path).suffix}", path).replace("street.jpg", street)
    blocked = "import sys; sys.modules['detectron2'] = sys.modules['ssl_backbones'] = None\n"
    (tmp_path / "ten_lines.py").write_text(blocked + script)
    words = [sys.executable, "-I", str(tmp_path / "ten_lines.py")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if number == 2:
        assert "dino" in done.stdout
        assert yaml.unsafe_load((tmp_path / "config.yaml").read_text())["model"]["pixel_mean"]
        return
    facts, run = elsewhere.load(path)
    _, scores, classes, _ = run(*elsewhere.prepare(elsewhere.read(street), facts))
    names = (facts["classes"][number] for number in classes)
    found = [(n, round(float(score), 3)) for n, score in zip(names, scores, strict=True)]
    assert found and done.stdout.strip() == str(found)


def test_predict_takes_it(
    run_tool, capsys, exported, vit_export, vit_weights, vit, images, tmp_path
):
    """The same detections as of the checkpoint by its config."""
    run = Path(exported("frozen R50-FPN").path).parent

    def detections(name: str, *words: str) -> list[dict]:
        out = tmp_path / name
        common = ("--no-pictures", "--threshold", "0.05", "--out", str(out))
        told = run_tool("tools/predict.py", *images, *common, *words)
        assert told.returncode == 0, told.stderr
        return json.loads((out / "coco_instances_results.json").read_text())

    def of_run(folder: Path) -> list[dict]:
        words = ("--weights", str(folder / "model_final.pth"))
        return detections(folder.name, *words, "--config-file", str(folder / "config.yaml"))

    with safe_open(vit_weights.path, "np") as file:
        config = json.loads(file.metadata()[elsewhere.FACTS])["config"]
    (tmp_path / "config.yaml").write_text(config)  # as a stranger has it
    words = ("--config-file", str(tmp_path / "config.yaml"), "--opts", "train.device=cpu")
    assert detections("w", "--weights", vit_weights.path, *words) == of_run(vit)
    found, checkpoint = detections("g", "--weights", f"{run / 'detector.ts'}"), of_run(run)
    assert len(found) == len(checkpoint) > 0
    for one, other in zip(found, checkpoint, strict=True):
        assert one["category_id"] == other["category_id"]
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1e-2)
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-4)
        assert one["segmentation"] == other["segmentation"]
    words = [images[0], "--out", str(tmp_path / "x"), "--weights"]
    for more, why in (
        ([vit_export.path, "--config-file", "moco_1x"], "--config-file is of a run's checkpoint"),
        (["a.pth"], "--config-file is missing"),
    ):
        assert predict.main([*words, *more]) == 2
        assert why in capsys.readouterr().err


def test_without_its_test_set_a_run_is_exported_on_images(vit, monkeypatch, tmp_path):
    metadata = MetadataCatalog.get("digits_test")
    monkeypatch.setitem(vars(metadata), "image_root", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"its images are not at .*gone; make it with"):
        export(vit, tmp_path / "x.ts")
    assert not list(tmp_path.iterdir())
