"""The format of a fidelity.yaml: what it means, and what is refused in it."""

import pytest
import yaml
from fidelity_checking import ABSENT, check_fields, tree_of, value_of

from ssl_backbones.errors import InputError
from ssl_backbones.fidelity import insert, read, table
from ssl_backbones.fidelity.rows import BEGIN, END

ROW = {"field": "learning rate", "keys": "optimizer.lr", "published": 0.02, "source": "paper:3"}
CONTENT = {
    "published": "published (nobody)",
    "configs": {"short": "short.py", "long": "long.py"},
    "sources": {"paper": "a paper"},
    "stock": {"optimizer": "common/optim.py SGD"},
    "inherited": ["optimizer.*"],
    "rows": [ROW],
}
# Detectron2's common/optim.py, as a recipe has it.
FIELDS = {
    "optimizer._target_": "torch.optim.sgd.SGD",
    "optimizer.params._target_": "detectron2.solver.build.get_default_optimizer_params",
    "optimizer.params.weight_decay_norm": 0,
    "optimizer.lr": 0.02,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
}


@pytest.fixture
def write(tmp_path):
    def write(name="fidelity.yaml", **changes):
        path = tmp_path / name
        path.write_text(yaml.safe_dump({**CONTENT, **changes}, sort_keys=False))
        return path

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # A difference needs a reason, and a reason a difference.
        ({"ours": 0.01}, "gives no `reason`"),
        ({"reason": "because"}, "does not differ"),
        ({"ours": 0.02, "reason": "because"}, "does not differ"),
        ({"source": "elsewhere:3"}, "none of paper"),
        ({"source": None}, "has no `source`"),
        ({"published": None}, "has no `published`"),
        ({"field": None}, "has no `field`"),
        ({"key": "optimizer.lr"}, "nothing else"),
        ({"code": "torch.optim.SGD"}, "either `keys` or `code`"),
        ({"keys": None}, "either `keys` or `code`"),
        ({"configs": ["middle"]}, "no configs of this file"),
    ],
)
def test_a_wrong_row_is_refused_by_its_name(write, change, message):
    row = {key: value for key, value in {**ROW, **change}.items() if value is not None}
    with pytest.raises(InputError, match=message) as refusal:
        read(write(rows=[row]))
    assert "row 1" in str(refusal.value)


@pytest.mark.parametrize(
    ("keys", "is_refused"),
    [
        ("optimizer.lr", True),
        ("optimizer", True),  # holds the other
        ("optimizer.lr.0", True),  # is held by it
        ("optimizer.lr_scale", False),
    ],
)
def test_a_field_is_in_one_row(write, keys, is_refused):
    path = write(rows=[ROW, {**ROW, "field": "again", "keys": keys}])
    if is_refused:
        with pytest.raises(InputError, match="both hold"):
            read(path)
    else:
        assert len(read(path).rows) == 2


def test_rows_of_different_configs_may_be_of_one_field(write):
    rows = [{**ROW, "configs": ["short"]}, {**ROW, "configs": ["long"], "published": 0.2}]
    fidelity = read(write(rows=rows))
    assert [row.published for row in fidelity.rows_of("long")] == [0.2]


@pytest.mark.parametrize("text", ["rows: [", "just words", "rows: []\nother: 1", "\x00"])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "fidelity.yaml"
    path.write_text(text)
    for file in (path, tmp_path / "none.yaml"):
        with pytest.raises(InputError, match=str(file)):
            read(file)


def test_a_missing_part_is_named(write):
    for name in ("published", "configs", "rows"):
        path = write()
        content = {key: value for key, value in CONTENT.items() if key != name}
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(InputError, match=f"has no `{name}`"):
            read(path)


def test_a_config_as_described_has_no_problems_and_each_other_one_has(write):
    fidelity = read(write())
    assert check_fields(FIELDS, fidelity, "short") == []
    for field, value, told in (
        ("optimizer.lr", 0.01, "learning rate: optimizer.lr is 0.01, and 0.02"),
        ("optimizer.momentum", 0.5, "optimizer.momentum is 0.5, and 0.9 where it is inherited"),
        ("optimizer.nesterov", True, f"optimizer.nesterov is True, and '{ABSENT}'"),
        ("train.new", 1, "train.new = 1 is in no row and on no list"),
    ):
        (problem,) = check_fields({**FIELDS, field: value}, fidelity, "short")
        assert problem.startswith(told)
    less = {key: value for key, value in FIELDS.items() if key != "optimizer.momentum"}
    (problem,) = check_fields(less, fidelity, "short")
    assert problem.startswith(f"optimizer.momentum is '{ABSENT}'")


def test_a_list_of_inherited_fields_holds_nothing_that_is_not_there(write):
    fidelity = read(write(inherited=["optimizer.*", "optimizer.betas"]))
    assert check_fields(FIELDS, fidelity, "short") == ["nothing is inherited by 'optimizer.betas'"]


def test_code_that_a_row_names_must_exist(write):
    row = {"field": "order", "published": "a", "ours": "b", "reason": "c", "source": "paper"}
    good = {**row, "code": "detectron2.data.samplers.distributed_sampler.TrainingSampler"}
    assert check_fields(FIELDS, read(write(rows=[ROW, good])), "short") == []
    bad = {**row, "code": "detectron2.data.samplers.NoSampler"}
    (problem,) = check_fields(FIELDS, read(write(rows=[ROW, bad])), "short")
    assert problem == "order: there is no detectron2.data.samplers.NoSampler"


def test_values_are_found_at_any_depth_and_in_defaults():
    tree = tree_of(
        {
            **FIELDS,
            "sizes.0.0": 32,
            "sizes.1.0": 64,
            "flip._target_": "detectron2.data.transforms.augmentation_impl.RandomFlip",
            "head._target_": "detectron2.modeling.roi_heads.roi_heads.StandardROIHeads",
            "none": [],
        }
    )
    for key, value in (
        ("sizes", [[32], [64]]),
        ("sizes.1.0", 64),
        ("optimizer.lr", 0.02),
        ("none", []),
        ("flip.prob", 0.5),  # RandomFlip(prob=0.5, ...)
        ("optimizer.nesterov", False),
        ("head.proposal_append_gt", True),  # a parameter of the base class
        ("head.num_classes", ABSENT),  # which has no default
        ("flip.other", ABSENT),
        ("nowhere.at.all", ABSENT),
        ("optimizer.lr.0", ABSENT),
    ):
        assert value_of(tree, key) == value, key


def test_a_file_based_on_another_has_its_rows_but_for_those_it_replaces(write):
    momentum = {**ROW, "field": "momentum", "keys": "optimizer.momentum", "published": 0.9}
    write("base.yaml", rows=[ROW, momentum, {**ROW, "keys": "other", "configs": ["long"]}])
    path = write(
        "derived.yaml",
        based_on={"file": "base.yaml", "config": "short"},
        configs={"one": "one.py", "two": "two.py"},
        rows=[{**ROW, "published": 0.1, "configs": ["two"]}],
    )
    fidelity = read(path)
    assert [row.published for row in fidelity.rows_of("one")] == [0.02, 0.9]
    assert [row.published for row in fidelity.rows_of("two")] == [0.1, 0.9]
    assert [row.based for row in fidelity.rows_of("two")] == [False, True]
    assert "0.9" not in table(fidelity) and "0.1" in table(fidelity)
    with pytest.raises(InputError, match="none of short, long"):
        read(write("bad.yaml", based_on={"file": "base.yaml", "config": "middle"}))


def test_rows_of_an_included_file_are_replaced_field_by_field(write):
    momentum = {**ROW, "field": "momentum", "keys": "optimizer.momentum", "published": 0.9}
    write("common.yaml", rows=[ROW, momentum])
    own = {**ROW, "published": 0.1, "configs": ["short"]}
    fidelity = read(write("own.yaml", include=["common.yaml"], rows=[own]))
    assert [row.published for row in fidelity.rows_of("short")] == [0.1, 0.9]
    assert [row.published for row in fidelity.rows_of("long")] == [0.02, 0.9]
    # They stand in its table, which those of a file that it is based on do not.
    assert "0.9" in table(fidelity)


def test_the_table_tells_differences_with_their_reasons_and_escapes(write):
    rows = [
        ROW,
        {
            **ROW,
            "field": "steps",
            "keys": "a.b",
            "published": 8,
            "ours": 90000,
            "reason": "x|y <b>",
        },
        {**ROW, "field": "frozen", "keys": "c.freeze_at", "published": 1, "wording": "stem"},
        {**ROW, "field": "long only", "keys": "d", "published": [1, 2], "configs": ["long"]},
        {**ROW, "field": "off", "keys": "e", "published": {"f": False}, "wording": "off"},
        {**ROW, "field": "flip", "keys": "g._target_", "published": "a.b.Flip", "wording": "yes"},
    ]
    lines = table(read(write(rows=rows))).splitlines()
    assert lines[0] == "| field | published (nobody) | here | source |"
    assert lines[2:8] == [
        "| learning rate | 0.02 | the same | `paper:3` |",
        "| steps | 8 | **90,000**: x\\|y &lt;b> | `paper:3` |",
        "| frozen | stem | freeze_at = 1 | `paper:3` |",
        "| long only (long) | 1, 2 | the same | `paper:3` |",
        "| off | off | the same | `paper:3` |",
        "| flip | yes | Flip | `paper:3` |",
    ]
    assert lines[-1] == "- `paper`: a paper"


def test_what_only_controls_have_is_not_shown_as_published(write):
    rows = [
        ROW,
        {**ROW, "field": "frozen", "keys": "a", "published": 1, "configs": ["short"]},
        {**ROW, "field": "frozen", "keys": "a", "published": 0, "configs": ["long"]},
    ]
    lines = table(read(write(rows=rows, controls=["long"]))).splitlines()
    assert lines[2:5] == [
        "| learning rate | 0.02 | the same | `paper:3` |",
        "| frozen (short) | 1 | the same | `paper:3` |",
        "| frozen (long) | *not published, a control*: 0 | the same | `paper:3` |",
    ]
    with pytest.raises(InputError, match=r"'middle'.* no configs of this file"):
        read(write(controls=["middle"]))


def test_a_table_is_put_between_the_markers_of_a_page():
    begin, end = BEGIN.format("voc_c4"), END.format("voc_c4")
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    new = insert(page, "| new |\n", "voc_c4")
    assert new == f"before\n{begin}\n\n| new |\n\n{end}\nafter\n"
    assert insert(new, "| new |\n", "voc_c4") == new
    for bad in ("no markers", f"{end}\n{begin}", f"{page}{page}"):
        with pytest.raises(InputError, match="needs one line"):
            insert(bad, "", "voc_c4")
