"""MoCo's C4 configs and Detectron2's own beside ours, key by key."""

import pytest
from detectron2 import model_zoo
from detectron2.config import CfgNode
from fidelity_checking import tree_of, value_of
from fidelity_files import config, read
from moco_c4 import FILES, effective_config
from yaml_keys import NOT_COMPARED, SHARED, TRANSLATED

from ssl_backbones.engine.recipe import recipe
from ssl_backbones.fidelity.rows import normal

VOC = ("projects/voc_c4/fidelity.yaml", "moco_voc_c4_24k", "voc_moco")
COCO = ("projects/coco_c4/fidelity.yaml", "moco_c4_2x", "coco_moco")
SIDE_BY_SIDE = [VOC, COCO]


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def side_by_side(file, name, theirs):
    """(their key, ours) of each compared field that differs."""
    fields = tree_of(recipe(config(file, name)))
    found = set()
    for key, value in leaves(theirs):
        if key in SHARED:
            ours = SHARED[key]
            expected = (normal(value), [normal(value)])
        elif key in TRANSLATED:
            ours, expect = TRANSLATED[key]
            expected = (normal(expect(value, theirs)),)
        else:
            continue
        here = normal(value_of(fields, ours))
        # A list of one is written as the value alone in either config.
        if here not in expected and [here] not in expected:
            found.add((key, ours))
    return found


def named_differences(file, name):
    return {key for row in read(file).rows_of(name) if row.differs for key in row.keys}


def changed(value):
    """Another value that the config takes."""
    if value is None:
        return 1.0
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}other"
    return [changed(value[0]), *value[1:]]


@pytest.mark.parametrize("moco", FILES)
def test_each_key_of_a_yaml_config_is_compared_or_says_why_not(moco):
    ways = (SHARED, TRANSLATED, NOT_COMPARED)
    for key, _ in leaves(effective_config(moco)):
        assert sum(key in way for way in ways) == 1, key


@pytest.mark.parametrize(("file", "name", "moco"), SIDE_BY_SIDE)
def test_beside_mocos_config_no_difference_is_unnamed(file, name, moco):
    differing = side_by_side(file, name, effective_config(moco))
    assert {ours for _, ours in differing} <= named_differences(file, name)


@pytest.mark.parametrize(("file", "name", "moco"), SIDE_BY_SIDE)
def test_a_change_of_any_compared_key_is_seen(file, name, moco):
    same = side_by_side(file, name, effective_config(moco))
    seen = set()
    for key, value in leaves(effective_config(moco)):
        if key in NOT_COMPARED or (moco == "voc_moco" and key.startswith("MODEL.ROI_MASK_HEAD.")):
            continue
        other = effective_config(moco)
        other.merge_from_list([key, changed(value)])
        assert key in {theirs for theirs, _ in side_by_side(file, name, other) - same}, key
        seen.add(key)
    assert {
        *("SOLVER.GAMMA", "SOLVER.CLIP_GRADIENTS.ENABLED", "MODEL.RESNETS.NUM_GROUPS"),
        *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "INPUT.CROP.ENABLED"),
        *("DATALOADER.SAMPLER_TRAIN", "MODEL.ROI_HEADS.NAME", "MODEL.RPN.POST_NMS_TOPK_TEST"),
    } <= seen
    assert ("MODEL.ROI_MASK_HEAD.NUM_CONV" in seen) == (moco == "coco_moco")


def test_beside_detectron2s_own_voc_config_every_difference_is_a_row_from_moco():
    file, name, _ = VOC
    stock = model_zoo.get_config("PascalVOC-Detection/faster_rcnn_R_50_C4.yaml")
    differing = side_by_side(file, name, stock)
    rows = read(file).rows_of(name)
    for _, ours in differing:
        (row,) = (r for r in rows if any(f"{ours}.".startswith(f"{key}.") for key in r.keys))
        assert row.source.partition(":")[0] in FILES, row
    # MoCo's files against Detectron2's, by eye.
    assert {key for key, _ in differing} == {
        *("MODEL.BACKBONE.FREEZE_AT", "MODEL.RESNETS.NORM", "MODEL.RESNETS.STRIDE_IN_1X1"),
        *("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT", "MODEL.ROI_HEADS.NAME"),
        *("SOLVER.STEPS", "SOLVER.MAX_ITER", "TEST.PRECISE_BN.ENABLED", "MODEL.WEIGHTS"),
    }
