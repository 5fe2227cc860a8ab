"""What the rows cite stands there: in MMDetection's, MoCo's and Detectron2's own configs."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data import transforms
from fidelity_files import ROWS, read
from moco_c4 import FILES as MOCO
from moco_c4 import effective_config, facts
from published_fields import GPUS, IN_DETECTRON2S_TERMS, Facts, in_our_terms

from ssl_backbones.fidelity.rows import normal

DETECTRON2 = {
    "d2": "",
    "d2c4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "d2fpn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "d2kp": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
}
MMDETECTION = ("selfsup", "ms2x", "model", "data", "schedule_1x", "schedule_2x", "mmcv")
CONFIGS = "configs/fidelity.yaml"
LOW_SHOT = "projects/low_shot/fidelity.yaml"
# Nothing of these can be looked up: a paper's text, programs without fields, and this project's own.
IN_WORDS = {
    *("paper", "train_net", "definition", "control", "trainer"),
    *("convnext_code", "swin_code", "vitdet_code"),
}
# Compared in test_convnext_sources.py and test_vitdet_sources.py.
CONVNEXT = {"convnext", "convnext_model", "swin_data", "swin_schedule"}
VITDET = {"vitdet", "vitdet_model", "vitdet_data", "vitdet_optimizer"}


def rows_from(sources):
    for file, row in ROWS:
        name, _, place = row.source.partition(":")
        # What a file is based on is in that file already.
        if name in sources and not row.based:
            yield file, row, name, place


def test_every_source_is_compared_or_in_words():
    known = {
        *MOCO,
        *DETECTRON2,
        *MMDETECTION,
        "soft_teacher",
        "d2code",
        "torch",
        "d2train",
        *IN_WORDS,
        *CONVNEXT,
        *VITDET,
    }
    assert {row.source.partition(":")[0] for _, row in ROWS} == known


def test_what_nobody_published_is_of_controls():
    of_controls = [(file, row) for file, row, *_ in rows_from({"control"})]
    assert len(of_controls) == 17
    for file, row in of_controls:
        assert row.configs and set(row.configs) <= set(read(file).controls), row


# MMDetection


@pytest.fixture(scope="module")
def mmdetection():
    return yaml.safe_load(Path(__file__).with_name("mmdetection.yaml").read_text())


def recipe_of(config):
    """The published recipe that a config is, or is the control of: moco or swav, 1x or ms2x."""
    method, schedule = config.split("_")
    return (method if method in ("moco", "swav") else "moco", schedule)


def effective_facts(mmdetection, config):
    """What MMDetection's files come to together for one of our configs; a control has no checkpoint."""
    method, schedule = recipe_of(config)
    name = "selfsup" if schedule == "1x" else "ms2x"
    own = f"{name}_{'mocov2' if method == 'moco' else 'swav'}"
    found = {}
    for file in ("mmcv", "model", "data", f"schedule_{schedule.removeprefix('ms')}", own):
        for line, key, value in mmdetection[file]["facts"]:
            if file == own and not config.startswith(method) and "init_cfg" in key:
                continue
            found[key] = (f"{name if file == own else file}:{line or key}", value)
    return Facts(found)


def test_mmdetections_files_are_those_of_the_sources(mmdetection):
    sources = {**read(Path(CONFIGS)).sources, **read(Path(LOW_SHOT)).sources}
    for name, content in mmdetection.items():
        text = sources[name.partition("_mocov2")[0].partition("_swav")[0]]
        path = content["file"].split(" of ")[0]
        for method in ("mocov2", "swav"):
            path = path.replace(f"-{method}-", "-{mocov2,swav}-")
        assert path in text and content["commit"] in text


def test_what_rows_cite_from_mmdetection_stands_there(mmdetection):
    cited = 0
    for file, row, _, _ in rows_from(MMDETECTION):
        places = set()
        for config in row.configs or read(file).configs:
            known = effective_facts(mmdetection, config)
            published = in_our_terms(row, known)
            assert normal(published) == normal(row.published), (row.field, config)
            places |= known.places
        assert row.source in places, (row.field, row.source, sorted(places))
        cited += 1
    assert cited > 75


@pytest.mark.parametrize("config", ["moco_1x", "swav_ms2x", "supervised_1x"])
def test_no_cited_fact_can_change_unseen(mmdetection, config):
    rows = [r for _, r, *_ in rows_from(MMDETECTION) if not r.configs or config in r.configs]
    original = effective_facts(mmdetection, config)
    for row in rows:
        in_our_terms(row, original)
    assert len(original.asked) > 60
    for key in original.asked:
        place, value = original.values[key]
        changed = Facts({**original.values, key: (place, other(value))})
        assert any(differs(row, changed) for row in rows), (place, key)
    added = Facts({**original.values, "optim_wrapper.paramwise_cfg.norm_decay_mult": ("", 0)})
    assert {row.field for row in rows if differs(row, added)} == {
        *("weight decay of norm parameters", "weight decay as built"),
    }


def differs(row, known):
    try:
        return normal(in_our_terms(row, known)) != normal(row.published)
    except KeyError:  # a word that stands for nothing of ours
        return True


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, list | tuple):
        return [other(value[0]), *value[1:]]
    return f"{value}other" if isinstance(value, str) else value + 1


def test_what_rows_cite_from_soft_teacher_stands_there(mmdetection):
    known = {key: value for _, key, value in mmdetection["soft_teacher"]["facts"]}
    rows = [(row, place) for _, row, _, place in rows_from({"soft_teacher"})]
    assert len(rows) == len(known) == 4
    for row, place in rows:
        factor = GPUS if place == "data.samples_per_gpu" else 1
        assert row.published == known[place] * factor, row


# MoCo and Detectron2


def in_their_terms(row, key, value, cfg):
    """Whether `value`, of `key` in a Detectron2 yaml config, is what a row has as published."""
    if row.field in IN_DETECTRON2S_TERMS:
        return normal(IN_DETECTRON2S_TERMS[row.field](value, cfg)) == normal(row.published)
    published = normal(row.published)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(published, list) and is_number:  # which has training and testing apart
        both = (key.replace("_TEST", "_TRAIN"), key.replace("_TRAIN", "_TEST"))
        return published == [value if one == key else normal(_at(cfg, one)) for one in both]
    return normal(value) in (published, [published])


def _at(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]  # raises where there is no such key
    return cfg


def is_rate_as_built(row):
    """Whether it is compared in `test_learning_rates_follow_from_the_other_rows`."""
    return "learning rate" in row.field and "as built" in row.field


def assert_stands_there(row, key, value, cfg):
    if not is_rate_as_built(row):
        assert in_their_terms(row, key, value, cfg), row
        assert not in_their_terms(row, key, other(value), cfg), row


def test_what_rows_cite_from_moco_stands_there():
    cited = 0
    for file, row, name, line in rows_from(MOCO):
        assert MOCO[name] in read(file).sources[name]
        key, value = facts(name)[int(line)]
        assert_stands_there(row, key, value, effective_config(name))
        cited += 1
    assert cited > 50


def test_what_rows_cite_from_detectron2_stands_there():
    cited = 0
    for file, row, name, key in rows_from(DETECTRON2):
        assert (DETECTRON2[name] or "config/defaults.py") in read(file).sources[name]
        cfg = model_zoo.get_config(DETECTRON2[name]) if DETECTRON2[name] else get_cfg()
        assert_stands_there(row, key, _at(cfg, key), cfg)
        cited += 1
    assert cited > 60


def test_defaults_in_code_are_those_of_the_rows():
    cited = 0
    for _, row, name, place in rows_from({"d2code", "torch"}):
        of, parameter = place.split(".")
        callee = getattr({"d2code": transforms, "torch": torch.nn}[name], of)
        default = inspect.signature(callee.__init__).parameters[parameter].default
        assert default == row.published, row
        cited += 1
    for _, row, _, place in rows_from({"d2train"}):
        assert dict(_at(model_zoo.get_config("common/train.py"), place)) == row.published, row
        cited += 1
    assert cited > 6


def test_learning_rates_follow_from_the_other_rows():
    """Of Detectron2's schedule; MMDetection's warm-up is among its facts."""
    checked = 0
    for file, row, *_ in rows_from({*MOCO, *DETECTRON2}):
        if not is_rate_as_built(row):
            continue
        for config in row.configs or read(file).configs:
            published = {one.field: one.published for one in read(file).rows_of(config)}
            for key in row.keys:
                iteration = int(key.rpartition(".")[2])
                warm_up, first = (
                    published[f"warm-up, {part}"] for part in ("iterations", "first factor")
                )
                passed = sum(iteration >= step for step in published["steps"])
                factor = published["factors of the learning rate"][passed]
                if iteration < warm_up:
                    factor = first + (1 - first) * iteration / warm_up
                rate = published["learning rate"] * factor
                assert rate == pytest.approx(row.published, rel=1e-9), (file, row)
                checked += 1
    assert checked > 20
