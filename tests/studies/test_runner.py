"""The record of a study, and that a study goes on with its own settings alone."""

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.studies.runner import Record, check_settings

COLUMNS = ("run", "status", "bbox/AP")


@pytest.mark.parametrize(("name", "columns"), [("runs.csv", COLUMNS), ("runs.json", ())])
def test_rows_are_read_as_they_were_written(tmp_path, name, columns):
    record = Record(tmp_path / name, columns)
    assert record.read() == {}
    fields = {"run": "a, b", "status": 'exit status 1: "no" disk', "bbox/AP": 1.5, "more": [1]}
    row = record.row(fields)
    words = {"run": "a, b", "status": fields["status"], "bbox/AP": "1.5"}
    assert row == (words if columns else fields)
    record.write({"a, b": row})
    assert record.read() == {"a, b": row}
    assert record.row({"run": "c"}) == (
        {"run": "c", "status": "", "bbox/AP": ""} if columns else {"run": "c"}
    )


def test_a_file_of_something_else_is_refused(tmp_path):
    record = Record(tmp_path / "runs.csv", COLUMNS)
    record.path.write_text("run,status\na,done\n")
    with pytest.raises(InputError, match="is not the record of this study: move it away"):
        record.read()
    head = ",".join(COLUMNS).encode() + b"\n"
    # Not text, a row cut short, one with a cell too many, and a cell larger than the reader takes.
    for damaged in (
        b"\xff\xfe\x00",
        head + b"a,done\n",
        head + b"a,done,1.5,2\n",
        head + b"a,done," + b"1" * 200_000,
    ):
        record.path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"runs\.csv is damaged"):
            record.read()


def test_settings_are_written_once_and_then_kept_to(tmp_path):
    path = tmp_path / "study.json"
    check_settings(path, {"weights": None, "overrides": ["a=1"]})
    assert path.read_text() == '{\n "weights": null,\n "overrides": [\n  "a=1"\n ]\n}\n'
    check_settings(path, {"weights": None, "overrides": ["a=1"]})
    with pytest.raises(InputError, match="with weights=None and this one has b: give the same"):
        check_settings(path, {"weights": "b", "overrides": ["a=1"]})
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"study\.json is damaged: give another --output"):
            check_settings(path, {})
