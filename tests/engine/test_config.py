import pytest
from detectron2.config import instantiate

from ssl_backbones import InputError
from ssl_backbones.engine.config import data_overrides, load_config, path_override


def test_loads_a_file_and_a_shipped_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("train = dict(max_iter=3)\n")
    assert load_config(str(file)).train.max_iter == 3
    assert load_config("swav_ms2x").train.max_iter == 180_000
    assert load_config("configs/swav_ms2x.py").train.max_iter == 180_000


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "no config given"),
        ("no_such", "no config named 'no_such'.*moco_1x, moco_ms2x, .*swav_1x, swav_ms2x"),
        ("elsewhere/moco_1x.py", "no config named"),
    ],
)
def test_a_missing_config_is_refused(file, message):
    with pytest.raises(InputError, match=message):
        load_config(file)


@pytest.mark.parametrize("text", ["train = dict(", "import no_such_module", "train = undefined"])
def test_a_config_that_does_not_load_is_refused_in_one_line(tmp_path, text):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(InputError, match="does not load") as error:
        load_config(str(file))
    assert "broken.py" in str(error.value)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.max_iter=10", "train.max_iter", 10),
        ("train.max_iter=1e3", "train.max_iter", 1000),  # a whole float is the int it means
        ("optimizer.lr=0.1", "optimizer.lr", 0.1),
        ("optimizer.lr=1", "optimizer.lr", 1),
        ("train.amp.enabled=true", "train.amp.enabled", True),
        ("train.output_dir=/tmp/x", "train.output_dir", "/tmp/x"),
        ("train.warmup_iters=null", "train.warmup_iters", None),
        (
            "dataloader.test.dataset.names=digits_test",
            "dataloader.test.dataset.names",
            "digits_test",
        ),
        # Not in the file, but a parameter of the target: FPN(norm=), SGD(nesterov=), COCOEvaluator(tasks=).
        ("model.backbone.norm=GN", "model.backbone.norm", "GN"),
        ("optimizer.nesterov=true", "optimizer.nesterov", True),
        ("model.roi_heads.box_head.conv_norm=GN", "model.roi_heads.box_head.conv_norm", "GN"),
        # Into lists, and lists themselves.
        (
            "dataloader.train.mapper.augmentations.0.max_size=200",
            "dataloader.train.mapper.augmentations.0.max_size",
            200,
        ),
        (
            "dataloader.train.mapper.augmentations.0.short_edge_length=[64,96]",
            "dataloader.train.mapper.augmentations.0.short_edge_length",
            [64, 96],
        ),
    ],
)
def test_an_override_arrives(override, key, value):
    from omegaconf import OmegaConf

    assert OmegaConf.select(load_config("moco_1x", [override]), key) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("solver.lrr=1", r"unknown config key 'solver.lrr'.*optimizer\.lr"),
        ("optimizer.lrr=1", r"unknown config key 'optimizer.lrr'.*optimizer\.lr"),
        ("train.max_iters=1", r"unknown config key.*train\.max_iter"),
        ("train.max_iter.x=1", "unknown config key"),
        ("model.backbone.bottom_up.freezeat=0", r"model\.backbone\.bottom_up\.freeze_at"),
        ("dataloader.train.mapper.augmentations.7.max_size=1", "unknown config key"),
        ("nonsense", "not of the form key=value"),
        ("train.max_iter=ten", "bad value for train.max_iter: 'ten' is a str"),
        ("train.max_iter=1.5", "bad value for train.max_iter"),
        ("train.max_iter=true", "bad value for train.max_iter"),
        ("train.amp.enabled=1", "bad value for train.amp.enabled"),
        ("train.output_dir=3", "bad value for train.output_dir"),
        ("+train.new=1", "'\\+' and '~' are not supported"),
        ("~train.seed", "not supported"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override, message):
    with pytest.raises(InputError, match=message) as error:
        load_config("moco_1x", [override])
    assert "\n" not in str(error.value)


def test_an_added_argument_reaches_the_object():
    cfg = load_config("moco_1x", ["model.backbone.norm=GN"])
    fpn = instantiate(cfg.model.backbone)
    assert type(fpn.fpn_lateral2.norm).__name__ == "GroupNorm"


@pytest.mark.parametrize(
    "name",
    ["a", "a b", "ü 漢", "it's", 'a"b', "[x]", "{y}", "a,b=c", "$H {x}", "b\\", "\\'#", "1"],
)
def test_any_path_is_read_from_its_override(name):
    path = f"/photos/{name}/model_final.pth"
    word = path_override("train.init_checkpoint", path)
    assert load_config("moco_1x", [word]).train.init_checkpoint == path
    if name == "a":
        assert word == f"train.init_checkpoint={path}"


def test_a_path_with_a_reference_in_it_is_refused():
    with pytest.raises(InputError, match=r"/photos/\$\{x\}: .* a reference .*; rename it"):
        data_overrides("/photos/${x}")
