"""``rlaif data`` as a user runs it: output and exit code."""

import json

import pytest

from actors.cli.__main__ import main
from actors.cli.data import UseName
from rlaif.data.readers import READERS


@pytest.fixture
def data(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main(["data", *map(str, arguments)])
        return leaving.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def pairs(tmp_path):
    rows = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(12)]
    rows += [{"prompt": "\x1b[31mred\u202e\nsecond line", "chosen": "a" * 700, "rejected": ""}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_the_uses_are_those_that_there_are_readers_for():
    assert {use.value for use in UseName} == set(READERS)


def test_it_says_what_a_file_is_usable_as_and_shows_ten_rows(data, pairs):
    code, out, err = data(pairs)
    assert (code, err) == (0, "")
    assert "1 file: JSON, an object per line, utf-8" in out and "13 rows; columns `prompt`, `chosen`, `rejected`" in out
    assert "usable as pairs" in out and "12 of 13 rows are usable, 1 quarantined" in out
    assert "quarantined 1: field `rejected` is empty (first: row 13)" in out
    assert "not usable as votes: every row is unusable; row 1: field `question` is missing" in out
    assert "row 10\n  human: q9\n  chosen: good\n  rejected: bad\n" in out and "row 11" not in out


def test_what_a_terminal_would_obey_is_written_out(data, pairs):
    code, out, _ = data(f"{pairs}#13-13", "--as", "prompts")
    assert code == 0 and "\x1b" not in out and "\u202e" not in out
    assert "  human: \\x1b[31mred\\u202e\n         second line\n" in out


@pytest.mark.parametrize(("use", "reason"), [("votes", "field `question` is missing"), (None, "no such file")])
def test_what_is_not_usable_ends_with_two(data, pairs, use, reason):
    code, out, err = data(pairs, "--as", use) if use else data("gone.jsonl")
    assert code == 2 and err.startswith("error: ") and reason in out + err


def test_fields_of_other_names_are_named(data, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"request": {"text": "May I?"}}\n')
    code, out, _ = data(tmp_path / "a.jsonl", "--field", "prompt=request.text")
    assert code == 0 and "  human: May I?\n" in out


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("prompt=request.txt", "prompt=request.txt: no row has this field; did you mean request.text?"),
        ("promt=request.text", "--field promt=request.text: no field promt; did you mean prompt?"),
        ("prompt", "--field prompt: write NAME=PATH"),
        ("prompt=", "--field prompt=: write NAME=PATH"),
    ],
)
def test_a_field_that_cannot_be_named_is_refused(data, tmp_path, field, said):
    (tmp_path / "a.jsonl").write_text('{"request": {"text": "May I?"}}\n')
    code, _, err = data(tmp_path / "a.jsonl", "--field", field)
    assert code == 2 and said in err


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ("data/hh.jsonl.gz", 0, "utf-8, gzip"),
        ("data/utf16.csv", 0, "cells separated by commas, utf-16"),
        ("data/semicolon.csv", 0, "separated by semicolons"),
        ("data/votes.jsonl", 0, "usable as votes"),
        ("data/lab_same.jsonl", 0, "pairs whose answers do not differ: 8"),
        ("data/lfs.jsonl", 2, "is a Git LFS pointer"),
        ("data/dup_header.csv", 2, "column `prompt` is there 2 times"),
        ("dirs/dir_mixed", 0, "passed over: .ipynb_checkpoints (hidden), README.md (not data)"),
        ("dirs/dir_split", 2, "holds the splits train and test"),
    ],
)
def test_files_of_others(data, shared_file, case, code, said):
    found, out, err = data(shared_file(f"cases/{case}"))
    assert found == code and said in out + err
