"""Every layout: recognised by itself, the right network taken, every key accounted for."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import struct
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_backbones.conversion import identification
from ssl_backbones.conversion.extraction import Backbone, extract, from_pretraining
from ssl_backbones.conversion.identification import SELFSUP_NAMES, Identified, identify
from ssl_backbones.conversion.layouts import LAYOUTS, Layout
from ssl_backbones.conversion.reading import Checkpoint, read_checkpoint
from ssl_backbones.conversion.searching import WRAPPERS
from ssl_backbones.errors import InputError

ROWS = {row.name: row for row in LAYOUTS if row.family == "resnet"}


def check(found: Identified, numbers: dict[str, float]) -> Backbone:
    """The whole backbone is taken, each tensor where it belongs, and every key has its reason."""
    backbone = extract(found)
    assert {name: array.flat[0] for name, array in backbone.tensors.items()} == numbers
    assert all((array == array.flat[0]).all() for array in backbone.tensors.values())
    assert backbone.unknown == ()
    accounted = {*backbone.sources.values(), *backbone.dropped}
    assert {*found.state_dict, *found.beside} == accounted
    return backbone


def test_files_are_recognised_and_the_right_network_is_taken(sample, tmp_path, expected):
    """In the container that the project writes, read from the disk."""
    path = tmp_path / "checkpoint.pth"
    torch.save(sample.build(), path, _use_new_zipfile_serialization=not sample.legacy)
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == ("torch-legacy" if sample.legacy else "torch-zip")
    for branch, start in sample.branches.items():
        found = identify(checkpoint.content, branch=branch)
        assert (found.layout.name, found.method) == (sample.layout, sample.method)
        assert branch is None or found.branch == branch
        check(found, expected(start))
    path.unlink()


def test_the_other_network_is_at_hand(sample, as_arrays, expected):
    """For the proof's control: the same file seen through its other branch, and back again."""
    content = as_arrays(sample.build())
    starts = dict(sample.branches)
    first = identify(content)
    if "momentum" not in starts and "student" not in starts:
        assert first.other is None
        return
    check(first.other, expected(starts[first.other.branch]))
    second = identify(content, branch=first.other.branch)
    assert second.other.branch == first.branch
    check(second.other, expected(starts[first.branch]))


def test_every_layout_has_an_example(samples):
    assert samples.keys() == ROWS.keys()
    assert len(LAYOUTS) >= 25


def broken(row: Layout) -> dict[str, Layout]:
    """A row spoilt in each of the ways that there are."""
    spoilt = {
        "prefix": replace(row, prefix=f"wrong.{row.prefix}"),
        "signature": replace(row, signature=("wrong",)),
    }
    if row.container:  # a state dict by itself is looked at without any row's container as well
        spoilt["container"] = replace(row, container=("wrong", *row.container))
    if row.other is not None:
        other = replace(row.other, prefix=f"wrong.{row.other.prefix}")
        spoilt["other prefix"] = replace(row, other=other)
    return spoilt


def test_a_broken_row_is_noticed(samples, as_arrays, expected, monkeypatch):
    """Each row is spoilt in each way in turn; what the tests above check must then fail."""
    unnoticed = []
    for name, sample in samples.items():
        content = as_arrays(sample.build())
        for way, spoilt in broken(ROWS[name]).items():
            rows = tuple(spoilt if row.name == name else row for row in LAYOUTS)
            monkeypatch.setattr(identification, "LAYOUTS", rows)
            with contextlib.suppress(AssertionError, InputError):
                for branch, start in sample.branches.items():
                    found = identify(content, branch=branch)
                    assert found.layout.name == name
                    check(found, expected(start))
                unnoticed.append((name, way))
    assert unnoticed == []


def test_the_methods_own_names_are_taken(samples, as_arrays):
    """`--selfsup pcl` on a file like MoCo's, and so on; the provenance then says what was asked."""
    for name, sample in samples.items():
        content = as_arrays(sample.build())
        for method in ROWS[name].selfsup_names:
            found = identify(content, method)
            assert (found.layout.name, found.method) == (name, method)


def test_another_method_is_refused_and_the_fitting_one_named(samples, as_arrays):
    content = as_arrays(samples["moco"].build())
    with pytest.raises(InputError, match="not laid out as dino does it but as moco: use --selfsup"):
        identify(content, "dino")
    with pytest.raises(InputError, match="no method 'mocco'; choose one of auto, moco, "):
        identify(content, "mocco")


def test_the_rows_are_whole():
    assert len({row.name for row in LAYOUTS}) == len(LAYOUTS)
    for row in LAYOUTS:
        assert row.source.startswith("https://")
        assert row.methods and row.signature
        assert row.prefix == "" or row.prefix.endswith(".")
        assert bool(row.branch) == (row.other is not None)
        assert all({**row.inside, **row.drops, **row.beside}.values())
        assert row.input["format"] == "RGB"
        assert set(row.selfsup_names) <= set(SELFSUP_NAMES)


def test_images_of_simclr_are_not_normalised():
    """Their code feeds ToTensor's output as it is; all others use ImageNet's statistics."""
    plain = {row.name for row in LAYOUTS if row.input["pixel_mean"] == [0.0] * 3}
    assert plain == {
        *("simclr-pytorch", "simclr-v2", "byol-sthalles", "simclr-sthalles", "simclr-spijkervet")
    }
    assert ROWS["moco"].input["pixel_mean"] == [123.675, 116.28, 103.53]


def test_augnets_other_networks_are_not_taken_for_its_resnet50(make, as_arrays):
    """Its Net18 and Net34, whose fc is an Identity, were trained on STL-10 with other statistics."""
    with pytest.raises(InputError, match="--prefix 'pre\\.'"):
        identify(as_arrays(make("module.pre.")))


def test_the_guides_new_method_works(names_of_examples, as_arrays, expected, monkeypatch):
    """CONTRIBUTING.md's row and example, as they stand there, in at most ten lines each."""
    guide = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
    _, _, section = guide.partition("## Add a method")
    section, _, _ = section.partition("\n## ")
    row, build = (textwrap.dedent(code) for code in re.findall(r"(?:^    .*\n)+", section, re.M))
    assert row.count("\n") + build.count("\n") <= 10
    layout = eval(row, {"Layout": Layout})
    exec(build, names_of_examples)
    content = as_arrays(names_of_examples["built"]())
    with pytest.raises(InputError, match="--prefix 'model/trunk"):
        identify(content)
    monkeypatch.setattr(identification, "LAYOUTS", (*LAYOUTS, layout))
    found = identify(content)
    assert found.method == "simlong"
    check(found, expected(1000))


# State dicts by themselves, in safetensors or not


def test_a_state_dict_that_was_saved_by_itself_is_recognised(samples, as_arrays, expected):
    for name in ("moco", "moco-v3", "barlowtwins-training", "densecl", "solo-learn", "lightly"):
        (*_, entry), sample = ROWS[name].container, samples[name]
        found = identify(as_arrays(sample.build())[entry])
        assert (found.layout.name, found.method) == (name, sample.method)
        check(found, expected(sample.branches[None]))
        if "momentum" in sample.branches:
            other = identify(as_arrays(sample.build())[entry], branch="momentum")
            check(other, expected(sample.branches["momentum"]))


def save_safetensors(tensors: dict[str, torch.Tensor], path) -> None:
    """The format: length of the header, JSON of names to place, the bytes."""
    types = {torch.float32: "F32", torch.int64: "I64"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        piece = tensor.numpy().tobytes()
        header[name] = {
            "dtype": types[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(piece)],
        }
        data += piece
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "layout", ["torchvision", "backbone", "hugging-face-model", "hugging-face-classifier", "swav"]
)
def test_safetensors_files_are_recognised(layout, samples, tmp_path, expected):
    path = tmp_path / "model.safetensors"
    save_safetensors(samples[layout].build(), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == "safetensors"
    found = identify(checkpoint.content)
    assert found.layout.name == layout
    check(found, expected(samples[layout].branches[None]))


def test_wrappers_are_taken_off(make, as_arrays, expected):
    """DistributedDataParallel's and torch.compile's, one inside the other as well."""
    for wrapper in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        found = identify(as_arrays(make(wrapper)))
        assert found.layout.name == "backbone"
        assert found.plain(f"{wrapper}conv1.weight") == "conv1.weight"
        check(found, expected(1000))


def wrapped_inside(content: object, wrapper: str) -> object:
    """The file with a wrapper behind the first part of each name, as where a module is compiled."""
    if not isinstance(content, dict):
        return content
    return {
        key.replace(".", f".{wrapper}", 1) if isinstance(value, np.ndarray) else key: (
            wrapped_inside(value, wrapper)
        )
        for key, value in content.items()
    }


def test_wrappers_are_taken_off_inside_of_names_too(samples, as_arrays, expected):
    """Once for all layouts: each is still itself, and every key has its account."""
    wrappers = itertools.cycle((*(f"{wrapper}." for wrapper in WRAPPERS), "module._orig_mod."))
    for name, sample in samples.items():
        content = wrapped_inside(as_arrays(sample.build()), next(wrappers))
        for branch, start in sample.branches.items():
            found = identify(content, branch=branch)
            assert (found.layout.name, found.method) == (name, sample.method)
            check(found, expected(start))


def test_the_provenance_says_what_was_taken_off_inside(make, as_arrays):
    def wrappers(content: dict, **options) -> object:
        checkpoint = Checkpoint("x.pth", "torch-zip", as_arrays(content), (), {}, None)
        options = {"selfsup": "auto", "branch": None, "prefix": None} | options
        return from_pretraining(checkpoint, **options).origin.get("wrappers")

    encoder = make("backbone._fsdp_wrapped_module._orig_mod.")
    for prefix in ("state_dict/backbone.", "backbone._fsdp_wrapped_module._orig_mod."):
        found = wrappers({"state_dict": encoder}, prefix=prefix)
        assert found == ["_orig_mod", "_fsdp_wrapped_module"]
    assert wrappers({"state_dict": encoder}) == found
    assert wrappers(make("module._orig_mod.")) is None  # before every name, as always


def test_wrappers_stay_where_two_names_would_become_one(make, as_arrays, expected):
    """The network and its average: without `module.` the one would be taken for the other."""
    content = as_arrays(make("net.") | make("net.module.", 2000))
    with pytest.raises(InputError, match="holds 2 whole ResNets"):
        identify(content)
    check_values = {"net.": 1000, "net.module.": 2000}
    for prefix, start in check_values.items():
        backbone = extract(identify(content, prefix=prefix))
        assert {name: a.flat[0] for name, a in backbone.tensors.items()} == expected(start)


# Branches


def test_a_branch_that_is_not_there_is_refused(samples, as_arrays):
    def refusal(layout: str, branch: str, without: str | None = None) -> str:
        content = as_arrays(samples[layout].build())
        content.pop(without, None)
        with pytest.raises(InputError) as caught:
            identify(content, branch=branch)
        return str(caught.value)

    assert "no student network but online and momentum" in refusal("moco", "student")
    assert "no online network but teacher and student" in refusal("dino-training", "online")
    assert "one network and no momentum branch" in refusal("simsiam", "momentum")
    assert "one network and no momentum" in refusal("pycontrast-linear", "momentum", "model_ema")
    assert "no branch 'key'; choose one of online, momentum" in refusal("moco", "key")


# Names that are alike


def test_a_second_copy_of_the_weights_must_be_the_same(samples, as_arrays):
    twice = [name for name, row in ROWS.items() if row.duplicate]
    assert len(twice) >= 6
    for name in twice:
        content = as_arrays(samples[name].build())
        (*_, entry) = ROWS[name].container or (None,)
        state = content[entry] if entry else content
        key = f"{ROWS[name].duplicate}layer3.5.conv2.weight"
        for changed in (state[key] + 1, np.array(["text"]), "text", state[key][:1]):
            state[key] = changed
            with pytest.raises(InputError, match=r"the backbone twice and layer3\.5\.conv2"):
                extract(identify(content))


def test_two_keys_of_one_tensor_are_refused(samples, as_arrays):
    content = as_arrays(samples["lightly"].build())
    state = content["state_dict"]
    state["backbone.conv1.weight"] = state["backbone.0.weight"]
    with pytest.raises(InputError, match=r"holds conv1\.weight twice"):
        extract(identify(content))


def test_the_stems_batch_norm_is_never_a_heads(samples, as_arrays, expected):
    """Without the stem's, one of the same size elsewhere is not taken in its place."""
    for name, prefix in (
        ("barlowtwins-training", "module.backbone."),
        ("pixpro", "module.encoder."),
        ("soco-c4", "module.encoder."),
        ("simclr-pytorch", "convnet."),
    ):
        content = as_arrays(samples[name].build())
        del content[ROWS[name].container[0]][f"{prefix}bn1.running_mean"]
        with pytest.raises(InputError, match=r"bn1\.running_mean is missing"):
            extract(identify(content))


def test_numbers_of_the_whole_network_are_kept_bit_by_bit(samples, as_arrays):
    """Nothing on the way from the file to the backbone rounds or reorders."""
    generator = np.random.default_rng(0)
    content = as_arrays(samples["densecl"].build())
    state = content["state_dict"]
    for key in [key for key in state if key.startswith("backbone.")]:
        if state[key].dtype == np.float32:
            state[key] = generator.random(state[key].shape, np.float32)
            state[key.replace("backbone.", "encoder_q.0.", 1)] = state[key]
    backbone = extract(identify(content))
    for name, source in backbone.sources.items():
        assert source == f"backbone.{name}"
        assert np.array_equal(backbone.tensors[name], state[source])
