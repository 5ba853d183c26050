"""Which files a source means: what a directory holds, splits, patterns, hub names, and a choice of rows."""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.data.files.sources import files_of, passed_over
from rlaif.data.rows import read_records, rows_in
from rlaif.errors import DataError
from tests.growth import must_end


def write(directory, *names, text=None):
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"x": "{name}"}}\n' if text is None else text)
    return str(directory)


def relative(source, directory):
    return [str(Path(file).relative_to(directory)) for file in files_of(source)]


def take_x(row):
    return row.fields["x"]


def test_what_is_no_data_is_passed_over_and_known(tmp_path):
    write(tmp_path, "a.jsonl", "deep/b.ndjson", "C.JSON", "d.jsonl.gz")
    write(tmp_path, ".ipynb_checkpoints/a-checkpoint.jsonl", "._a.jsonl", ".hidden.jsonl", "_temporary/0/x.jsonl")
    write(tmp_path, "_SUCCESS", "README.md", "LICENSE", "dataset_info.json", "state.json", "cache-12.arrow")
    write(tmp_path, "notes.xlsx", "a.jsonl.bak")
    write(tmp_path, "part-1.jsonl", text="")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone.jsonl")
    assert relative(str(tmp_path), tmp_path) == ["C.JSON", "a.jsonl", "d.jsonl.gz", "deep/b.ndjson"]
    assert passed_over(str(tmp_path)) == [
        "a.jsonl.bak (unknown kind of file)",
        "notes.xlsx (unknown kind of file)",
        "._a.jsonl (hidden)",
        ".hidden.jsonl (hidden)",
        ".ipynb_checkpoints (hidden)",
        "LICENSE (not data)",
        "README.md (not data)",
        "_SUCCESS (not data)",
        "_temporary (not data)",
        "cache-12.arrow (not data)",
        "dataset_info.json (not data)",
        "link.jsonl (broken link)",
        "part-1.jsonl (empty)",
        "state.json (not data)",
    ]


def test_a_directory_without_data_says_what_is_in_it(tmp_path):
    write(tmp_path, "data.xlsx", "README.md")
    with pytest.raises(DataError, match=r"passed over data\.xlsx \(unknown kind of file\), README\.md \(not data\)"):
        files_of(str(tmp_path))


def test_empty_parts_next_to_full_ones_are_no_mistake(tmp_path):
    write(tmp_path, "part-0.csv", text="x\none\n")
    write(tmp_path, "part-1.csv", text="x\n")
    write(tmp_path, "part-2.csv", text="")
    assert list(read_records(str(tmp_path), take_x, pytest.fail)) == ["one"]


def test_a_directory_of_empty_files_is_refused(tmp_path):
    write(tmp_path, "a.jsonl", "b.jsonl", text="")
    with pytest.raises(DataError, match="there are no rows"):
        list(read_records(str(tmp_path), take_x, pytest.fail))


@pytest.mark.parametrize(
    ("names", "ways"),
    [
        (["train/a.jsonl", "train/b.jsonl", "test/a.jsonl"], ["train", "test"]),
        (["train.jsonl.gz", "test.jsonl.gz"], ["train.jsonl.gz", "test.jsonl.gz"]),
        (["one/train.jsonl", "one/test.jsonl", "two/train.jsonl", "two/test.jsonl"], ["**/*train*", "**/*test*"]),
        (["data/train-0-of-2.csv", "data/train-1-of-2.csv", "data/test-0.csv"], ["data/*train*", "data/test-0.csv"]),
        (["a.jsonl", "x/training_1.jsonl", "x/dev.jsonl"], ["x/dev.jsonl", "x/training_1.jsonl"]),
        (["one_train/a.jsonl", "one_val/a.jsonl"], ["one_val", "one_train"]),
    ],
)
def test_splits_are_never_mixed_and_each_way_to_name_one_works(tmp_path, names, ways):
    source = write(tmp_path, *names)
    with pytest.raises(DataError, match="never mixed") as error:
        files_of(source)
    named = str(error.value).partition("name one: ")[2].split(" or ")
    assert sorted(named) == sorted(f"{source}/{way}" for way in ways)
    files = [relative(way, tmp_path) for way in named]
    assert all(files) and not set(files[0]) & set(files[1])


def test_a_pattern_does_not_mix_splits_either(tmp_path):
    write(tmp_path, "one/train.jsonl", "one/test.jsonl")
    with pytest.raises(DataError, match=r"name one: .*/one/train\.jsonl or .*/one/test\.jsonl"):
        files_of(f"{tmp_path}/**/*.jsonl")


def test_one_split_is_no_mixture(tmp_path):
    names = ["a.jsonl", "latest.jsonl", "test/a.jsonl", "test/contest.jsonl"]
    assert len(files_of(write(tmp_path, *names))) == len(names)


def test_a_pattern_names_files(tmp_path):
    write(tmp_path, "b-1.jsonl", "b-0.jsonl", "c.jsonl", "b.xyz")
    assert relative(f"{tmp_path}/b-*.jsonl", tmp_path) == ["b-0.jsonl", "b-1.jsonl"]
    write(tmp_path, "[1]*.jsonl")
    assert relative(f"{tmp_path}/[1]*.jsonl", tmp_path) == ["[1]*.jsonl"]
    with pytest.raises(DataError, match=r"b\.xyz: unknown kind of file"):
        files_of(f"{tmp_path}/b*")


@pytest.mark.parametrize(
    "name",
    [
        "x" * 300 + ".jsonl",
        "a\0b.jsonl",
        "nothing/**/*",
        "#",
        "#1",
        "a\ud800.jsonl",
        "s3://a/\ud800.jsonl",
        "hf:\ud800",
    ],
)
def test_a_name_that_no_file_has_is_refused(name):
    with pytest.raises(DataError, match=r"cannot be read|no such file|not UTF-8"):
        files_of(name)


def test_a_file_whose_name_is_not_utf8_is_refused_in_print(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    Path(os.fsdecode(name)).write_text('{"x": 1}\n')
    for source in (str(tmp_path), os.fsdecode(name)):
        with pytest.raises(DataError, match=r"caf\\xe9\.jsonl: the file's name is not UTF-8") as error:
            files_of(source)
        str(error.value).encode()
    write(tmp_path / "other", "a.jsonl")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/other/caf\xe9.xyz")).touch()
    assert passed_over(f"{tmp_path}/other") == [r"caf\xe9.xyz (unknown kind of file)"]


# ------------------------------------------------------------------------------------------------------------- rows
@pytest.fixture
def hundred(tmp_path):
    for part in range(2):
        rows = "".join(json.dumps({"x": 50 * part + i}) + "\n" for i in range(50))
        write(tmp_path, f"{part}.jsonl", text=rows)
    return str(tmp_path)


def test_rows_from_first_to_last(hundred):
    assert list(read_records(f"{hundred}#49-52", take_x, pytest.fail)) == [48, 49, 50, 51]
    assert next(rows_in(f"{hundred}#51-51")).place == f"{hundred}/1.jsonl:1"


def test_rows_by_lot_are_spread_and_fewer_are_among_more(hundred):
    few, more = (list(read_records(f"{hundred}#{num}", take_x, pytest.fail)) for num in (10, 20))
    assert len(few) == 10 and len(more) == 20
    assert few == sorted(few) and few != list(range(10)) and set(few) < set(more)
    assert few == list(read_records(f"{hundred}#10", take_x, pytest.fail))
    assert len(list(rows_in(f"{hundred}#1000"))) == 100


def test_a_bad_row_of_a_choice_is_quarantined_though_its_part_has_no_other(hundred):
    write(Path(hundred), "2.jsonl", text="{broken\n" * 3)
    quarantined = []
    assert len(list(read_records(f"{hundred}#99-101", take_x, quarantined.append))) == 2
    assert [bad.id for bad in quarantined] == [f"{hundred}/2.jsonl:1"]


@pytest.mark.parametrize("rows", ["#0", "#0-5", "#6-5"])
def test_rows_that_cannot_be(hundred, rows):
    with pytest.raises(DataError, match="#FIRST-LAST"):
        files_of(hundred + rows)


def test_a_file_may_be_called_like_a_choice_of_rows(tmp_path):
    write(tmp_path, "out #2/a.jsonl")
    assert relative(f"{tmp_path}/out #2", tmp_path) == ["out #2/a.jsonl"]


# -------------------------------------------------------------------------------------------------------------- hub
HUB_README = """\
---
configs:
- config_name: safe
  data_files: [{split: train, path: a.jsonl}, {split: test_prefs, path: b.jsonl}]
- config_name: unsafe
  data_files: [{split: train, path: b.jsonl}]
---
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path, "README.md", text=HUB_README)
    return f"hf:{write(tmp_path, 'a.jsonl', 'b.jsonl')}"


def test_configuration_and_split_of_a_data_set(hub):
    with pytest.raises(DataError, match=f"configurations safe, unsafe, which are never mixed; name one: {hub}:safe or"):
        files_of(hub.removeprefix("hf:"))
    (row,) = rows_in(f"{hub}:safe@test_prefs#1")
    assert (row.place, dict(row.fields)) == (f"{hub}:safe@test_prefs:1", {"x": "b.jsonl"})
    assert [row.place for row in rows_in(f"{hub}:unsafe")] == [f"{hub}:unsafe:1"]


ALIASES = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
CARDS = {
    "aliases": f"a0: &a0 {{x: 1}}\n{ALIASES}configs: [*a11]",
    "a long number": f"configs:\n- config_name: 0x{'f' * 6000}\n- config_name: b",
    "depth": f"configs: {'[' * 3000}",
    "itself": "configs: &a [*a]",
    "a list as a key": "? [a]\n: b",
    "a tag": "configs:\n- config_name: !!python/object/apply:os.system [x]\n- config_name: b",
}


@pytest.mark.parametrize("card", CARDS)
def test_a_card_that_is_no_card_is_passed_over(tmp_path, card):
    write(tmp_path, "README.md", text=f"---\n{CARDS[card]}\n---\n")
    with must_end():
        assert relative(write(tmp_path, "a.jsonl"), tmp_path) == ["a.jsonl"]


def test_few_of_many_configurations_are_named(tmp_path):
    names = "".join(f"- config_name: {i}{'x' * 900}\n" for i in range(900))
    write(tmp_path, "README.md", text=f"---\nconfigs:\n{names}\n---\n")
    with pytest.raises(DataError, match="890 more") as error:
        files_of(write(tmp_path, "a.jsonl"))
    assert len(str(error.value)) < 5_000


def test_the_name_of_a_data_set_may_be_too_long_for_a_directory():
    assert files_of(f"hf:{'a' * 300}") == [f"hf:{'a' * 300}"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "has several configurations; choose {0}:safe or {0}:unsafe"),
        (":safer", "has no configuration safer; choose {0}:safe or {0}:unsafe"),
        (":safe@test", "has no split test; choose {0}:safe@train or {0}:safe@test_prefs"),
    ],
)
def test_a_wrong_choice_lists_the_right_ones(hub, name, message):
    with pytest.raises(DataError) as error:
        list(rows_in(hub + name))
    assert str(error.value) == f"{hub}{name}: {message.format(hub)}"


def test_one_value_that_is_not_utf8_does_not_end_a_data_set(tmp_path):
    text = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"x": text}), tmp_path / "train.parquet")
    quarantined = []
    assert list(read_records(f"hf:{tmp_path}", take_x, quarantined.append)) == ["fine"]
    assert quarantined[0].cause == "field `x` is not UTF-8 text"


def test_a_data_set_that_was_saved_to_disk_is_a_directory(tmp_path):
    datasets.Dataset.from_dict({"x": ["one", "two"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="name it without hf:"):
        files_of(f"hf:{tmp_path}/saved")
    assert list(read_records(f"{tmp_path}/saved", take_x, pytest.fail)) == ["one", "two"]


@pytest.mark.parametrize("source", ["hf:", "hf:a:b:c", "hf:a@b@c", "hf:@train"])
def test_what_is_no_name_of_a_data_set(source):
    with pytest.raises(DataError, match=r"use hf:NAME\[:CONFIG\]\[@SPLIT\]\[#ROWS\]"):
        files_of(source)
