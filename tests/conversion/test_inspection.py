"""The tree of keys, of honest contents and of such as would never end."""

from __future__ import annotations

import numpy as np

from ssl_backbones.conversion.containers.allow_list import Foreign
from ssl_backbones.conversion.inspection import key_tree, lines


def array(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_counts_and_shapes():
    content = {
        "epoch": 3,
        "args": Foreign("argparse.Namespace"),
        "state_dict": {
            "module.conv1.weight": array(64, 3, 7, 7),
            "module.fc.weight": array(10, 4),
            "module.fc.bias": array(10),
        },
        "optimizer": {},
    }
    tree = key_tree(content)
    assert (tree.tensors, tree.elements) == (3, 9408 + 40 + 10)
    assert list(lines(tree, 3)) == [
        ("epoch", "3"),
        ("args", "argparse.Namespace, not read"),
        ("state_dict.module", "3 tensors, 9,458 numbers"),
        ("  conv1.weight", "64x3x7x7 float32"),
        ("  fc", "2 tensors, 50 numbers"),
        ("    weight", "10x4 float32"),
        ("    bias", "10 float32"),
        ("optimizer", "dict of 0"),
    ]
    assert [name for name, _ in lines(tree, 1)] == [
        "epoch",
        "args",
        "state_dict.module",
        "optimizer",
    ]


def test_many_children_are_cut_short():
    tree = key_tree({f"key{number}": number for number in range(1000)})
    shown = list(lines(tree, 2))
    assert len(shown) == 13
    assert shown[-1] == ("...", "988 more")


def test_a_dictionary_within_itself_ends():
    """A pickle can say so."""
    content = {"a": {}}
    content["a"]["again"] = content
    assert list(lines(key_tree(content), 5)) == [("a.again", "dict of 1")]


def test_shared_dictionaries_do_not_multiply():
    level = {"tensor": array(1)}
    for _ in range(60):
        level = {"left": level, "right": level}
    assert key_tree(level).tensors <= 60


def test_deep_nesting_and_long_names_end():
    deep = value = {}
    for _ in range(100_000):
        value["a"] = {}
        value = value["a"]
    assert len(list(lines(key_tree(deep), 100))) == 1
    key_tree({".".join("b" * 100_000): array(1)})


def test_text_from_a_file_is_shown_without_control_characters():
    tree = key_tree({"\x1b[31mred": "\x1b]0;title\x07" + "x" * 1000})
    ((name, text),) = lines(tree, 1)
    assert "\x1b" not in name + text
    assert len(text) < 100
