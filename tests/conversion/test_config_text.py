"""Text of OpenMMLab's configs is read by its literals, and nothing of it is run."""

from __future__ import annotations

import textwrap

import pytest

from ssl_backbones.conversion.config_text import LONGEST, UNKNOWN, read_config


def test_a_printed_config_is_read_whole():
    """As mmengine's Config.pretty_text prints it: every value a literal or a dict(...)."""
    text = """\
        auto_scale_lr = dict(base_batch_size=256)
        model = dict(
            backbone=dict(depth=50, out_indices=(0, 1, 2, 3), style='caffe', type='ResNet'),
            data_preprocessor=dict(mean=[103.53, -1.5], bgr_to_rgb=False),
            pretrained=None)
        paramwise_cfg = dict(custom_keys={'gn': dict(lr_mult=0.1), 'bias': dict(lr_mult=2)})
        """
    assert read_config(textwrap.dedent(text)) == {
        "auto_scale_lr": {"base_batch_size": 256},
        "model": {
            "backbone": {
                "depth": 50,
                "out_indices": (0, 1, 2, 3),
                "style": "caffe",
                "type": "ResNet",
            },
            "data_preprocessor": {"mean": [103.53, -1.5], "bgr_to_rgb": False},
            "pretrained": None,
        },
        "paramwise_cfg": {"custom_keys": {"gn": {"lr_mult": 0.1}, "bias": {"lr_mult": 2}}},
    }


def test_base_files_are_merged_as_mmcv_merges_them():
    text = """\
        /home/me/My configs/base-1.0/r50.py
        model = dict(type='MoCo', backbone=dict(type='ResNet', style='pytorch'), neck=dict(a=1))
        norm = dict(mean=[1.0], to_rgb=True)
        configs/moco.py
        _base_ = '../r50.py'
        model = dict(backbone=dict(style='caffe'), neck=dict(_delete_=True, b=2))
        norm = None
        """
    config = read_config(textwrap.dedent(text))
    assert config["model"]["backbone"] == {"type": "ResNet", "style": "caffe"}
    assert config["model"]["neck"] == {"_delete_": True, "b": 2}
    assert config["norm"] is None


def test_a_flat_dictionary_is_unpacked_into_another():
    config = read_config(
        "norm = dict(mean=[0.5])\n"
        "pipeline = [dict(type='Normalize', **norm)]\n"
        "if not prefetch:\n    later.extend([dict(type='Normalize', **norm)])\n"
    )
    assert config["pipeline"] == [{"type": "Normalize", "mean": [0.5]}]
    assert config["norm"] == {"mean": [0.5]}


@pytest.mark.parametrize(
    "text",
    [
        "style = 'caf' + 'fe'",
        "style = STYLE",
        "style = f'caffe'",
        "style = {{_base_.style}}",
        "style = dict(**other)",
        "style = dict([('a', 1)])",
        "style = {'a': 1, **other}",
        "style = dict(a=1, a=2)",
        "style = b'caffe'",
        "style = ...",
        "style = ['caffe'][0]",
        "style = __import__('os').system('touch ran')",
    ],
)
def test_what_is_no_literal_is_unknown(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config(f"before = 1\n{text}\nafter = 2") == {
        "before": 1,
        "style": UNKNOWN,
        "after": 2,
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        "model.update(style='caffe')",
        "model['style'] = 'caffe'",
        "model.style = 'caffe'",
        "model = dict(style='caffe')",
        "if True:\n    model = 1",
        "for model in []: pass",
        "del model",
        "other = model",
        "other = dict(a=model)",
        "from base import model",
        "import base as model",
    ],
)
def test_what_may_change_afterwards_is_left_out(change):
    text = f"model = dict(style='pytorch')\n{change}\nlr = 0.1"
    assert "model" not in read_config(text)
    assert read_config(text)["lr"] == 0.1


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(",
        "model: [ResNet",
        "model = 1\nfrom base import *",
        "model = 1\x00",
        "model = '\ud800'",
        "model = " + "[" * 1000 + "]" * 1000,
        "model = " + "-" * 100_000 + "1",
        "model = 1" + "\nif a: b\n" + "elif c: d\n" * 10_000,
        "model = 1\n#" + " " * LONGEST,
    ],
)
def test_text_that_python_does_not_read_says_nothing(text):
    assert read_config(text) == {}


@pytest.mark.parametrize(
    "value", ["a" + ".b" * 60_000, "a" + "()" * 60_000, "+".join("1" * 60_000), "9" * 100_000]
)
def test_deep_and_long_values_do_no_harm(value):
    """Python refuses them or not, by its version; no value comes of them."""
    assert read_config(f"model = {value}").get("model", UNKNOWN) in (UNKNOWN, 10**100_000 - 1)


def test_dictionaries_do_not_grow_by_unpacking():
    lines = ["a0 = dict(x=dict())"]
    lines += [f"a{i + 1} = dict(x=dict(**a{i}), y=dict(**a{i}))" for i in range(100)]
    assert len(str(read_config("\n".join(lines)))) < 20_000
