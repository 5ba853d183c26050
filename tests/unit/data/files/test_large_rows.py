"""Rows that are larger than a row may be: each is quarantined by itself, and little of it is ever held."""

import bz2
import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.config.source import RowLimits
from rlaif.data.files import arrow_messages, arrow_rows, parquet_sizes, streams
from rlaif.data.files.arrow_sizes import num_bytes
from rlaif.data.files.csv_rows import csv_rows
from rlaif.data.files.json_rows import json_rows
from rlaif.data.files.raw_rows import Unreadable
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import rows_in
from rlaif.data.votes import read_votes
from rlaif.errors import DataError

MAX = 2000
TOO_LONG = "the row has more than 2,000 characters (data.limits.max_chars)"


def read(path, limits=RowLimits(max_chars=MAX)):  # noqa: B008  # frozen
    quarantined = []
    prompts = list(read_prompts(str(path), "red_team", quarantined.append, limits))
    return [prompt.turns[-1].text for prompt in prompts], [(row.row, row.cause) for row in quarantined]


def as_csv(prompts, end="\r\n"):
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([["prompt", "x"], *([prompt, "1"] for prompt in prompts)])
    return text.getvalue()


def as_array(prompts):
    return json.dumps([{"prompt": prompt, "x": {"y": ["{", "\\"]}} for prompt in prompts], indent=1)


def as_lines(prompts):
    return "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)


LARGE = ("x" * 5000, "a\n" * 4000, 'a"b,' * 3000, '"' * 5000, '\\"{[' * 2000, "é\r\n" * 3000, "]}" * 3000, "\\" * 5001)


@pytest.mark.parametrize("large", LARGE)
@pytest.mark.parametrize(("suffix", "write"), [(".jsonl", as_lines), (".json", as_array), (".csv", as_csv)])
def test_a_large_row_is_quarantined_alone(tmp_path, suffix, write, large):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(write(["one", large, "two", large, large, "three"]).encode())
    texts, quarantined = read(path)
    assert texts == ["one", "two", "three"]
    assert quarantined == [(row, TOO_LONG) for row in (2, 4, 5)]
    assert read(path, RowLimits())[1] == []


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_tables_of_every_ending_go_on_behind_a_large_row(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(["one", "x" * 5000, "a" + end * 5000, "two"], end).encode())
    assert read(path) == (["one", "two"], [(2, TOO_LONG), (3, TOO_LONG)])


@settings(deadline=None, max_examples=300)
@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('a",\n\r') | st.sampled_from("b"), max_size=40), min_size=2, max_size=2),
        min_size=1,
        max_size=8,
    ),
    part=st.integers(1, 7),
)
def test_what_is_passed_over_ends_where_the_csv_module_ends_it(tmp_path_factory, rows, part):
    """Rows that are short enough are the same, whatever large ones are between them, and numbers do not shift."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["prompt", "x"], *rows])
    path.write_text(text.getvalue(), newline="")
    whole = [dict(row.fields) for row in csv_rows(str(path), 10**6)]
    read = list(csv_rows(str(path), 30))
    assert [row.number for row in read] == list(range(1, len(rows) + 1))
    for row, fields in zip(read, whole, strict=True):
        assert row.mistake or dict(row.fields) == fields
        size = sum(len(cell.replace('"', '""')) for cell in rows[row.number - 1]) + 5
        assert bool(row.mistake) == (size > 30)


@settings(deadline=None, max_examples=300)
@given(
    values=st.lists(
        st.recursive(
            st.text(st.sampled_from('a"\\{}[],'), max_size=12) | st.integers(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_passed_over_of_an_array_ends_where_json_ends_it(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("json") / "a.json"
    rows = [{"x": value} for value in values]
    path.write_text(json.dumps(rows))
    read = list(json_rows(str(path), 30))
    assert [row.number for row in read] == list(range(1, len(rows) + 1))
    for row, fields in zip(read, rows, strict=True):
        assert bool(row.mistake) == (len(json.dumps(fields)) > 30)
        assert row.mistake or row.fields == fields


def test_a_deep_row_of_an_array_is_quarantined_alone(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f'[{{"prompt": "a"}}, {{"x": {"[" * 100_000}{"]" * 100_000}}}, {{"prompt": "b"}}]')
    texts, ((row, cause),) = read(path, RowLimits())
    assert texts == ["a", "b"] and row == 2 and "recursion" in cause


def test_a_broken_row_of_an_array_is_named_before_the_file_is_held(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a"}, {"prompt" "b"}' + ', {"prompt": "c"}' * 500_000 + "]")
    tracemalloc.start()
    with pytest.raises(DataError, match=r"row 2 is not JSON: Expecting ':' delimiter \(character 29\)"):
        read(path, RowLimits())
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("num_turns", [1000, 1001])
def test_turns_and_answers_are_counted(tmp_path, num_turns):
    path = tmp_path / "a.jsonl"
    turns = [{"role": ("user", "assistant")[i % 2], "content": "a"} for i in range(num_turns - 1 + num_turns % 2)]
    path.write_text(f'{{"prompt": "a"}}\n{json.dumps({"messages": turns})}\n')
    (*_,), quarantined = read(path, RowLimits(max_turns=999))
    words = "the conversation has 1,001 turns, more than 999 (data.limits.max_turns)"
    assert quarantined == ([(2, words)] if num_turns > 1000 else [])
    questions = [
        {"question": "q", "answers": [{"text": "a", "votes": i} for i in range(num)]} for num in (3, num_turns)
    ]
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    bad = []
    assert len(list(read_votes(str(path), bad.append))) == (2 if num_turns == 1000 else 1)
    assert [row.cause for row in bad] == [
        "the question has 1,001 answers, more than 1,000 (data.limits.max_answers)"
    ] * (num_turns - 1000)


# -------------------------------------------------------------------------------------------------------- columns
def peak_bytes(work):
    """Of Python's and of Arrow's memory."""
    before = pa.default_memory_pool().bytes_allocated()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak + pa.default_memory_pool().max_memory() - before


def repeated(text, num):
    return pa.DictionaryArray.from_arrays(pa.array([0] * num + [1], pa.int32()), [text, "short"])


NESTED = {
    "a text": (lambda text: text, lambda num: repeated("x" * 4_000_000, num)),
    "a list": (
        lambda text: text,
        lambda num: pa.ListArray.from_arrays(
            [*range(0, 10 * num, 10), 10 * num, 10 * num + 1], repeated("x" * 400_000, 10 * num)
        ),
    ),
    "a struct": (
        lambda text: text,
        lambda num: pa.StructArray.from_arrays([repeated("x" * 4_000_000, num)], ["content"]),
    ),
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_text_that_is_meant_by_every_row_is_made_for_none(tmp_path, suffix, kind):
    path, column = tmp_path / f"a{suffix}", NESTED[kind][1](300)
    table = pa.table({"prompt": column, "n": list(range(301))})
    if suffix == ".parquet":
        pq.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 20_000
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    del table, column
    causes = []

    def work():
        for row in rows_in(str(path)):
            try:
                row.fields["prompt"]
            except ValueError as error:
                causes.append(str(error))

    assert peak_bytes(work) < 100_000_000
    assert causes == ["field `prompt` has more than 1,000,000 bytes (data.limits.max_chars)"] * 300


def test_batches_are_bounded_in_bytes(tmp_path, monkeypatch):
    """Large rows of one size, and large rows behind many small ones, which pack well."""
    monkeypatch.setattr(parquet_sizes, "MAX_BATCH_BYTES", 2**20)
    sizes = []
    monkeypatch.setattr(arrow_rows._Columns, "__init__", spy(arrow_rows._Columns.__init__, sizes))
    for name, texts in (
        ("even", [f"{i:08d}" * 5_000 for i in range(500)]),
        ("odd", [*map(str, range(20_000)), *(f"{i}" + "x" * 300_000 for i in range(100))]),
    ):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"prompt": texts}), path, use_dictionary=False, compression="zstd")
        sizes.clear()
        assert [row.fields["prompt"] for row in rows_in(str(path))] == texts
        assert max(sizes) < 2 * 2**20, name


def large(num, kind):
    return pa.table({"prompt": [f"{i}" for i in range(num)], "x": pa.array([b"x" * 40_000] * num, kind)})


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (pa.binary(40_000), {}),
        (pa.binary(40_000), {"use_dictionary": False, "column_encoding": {"x": "DELTA_BYTE_ARRAY"}}),
        (pa.string(), {"use_dictionary": False, "column_encoding": {"x": "DELTA_BYTE_ARRAY"}}),
    ],
)
def test_values_that_a_file_hardly_holds_are_made_in_small_batches(tmp_path, monkeypatch, kind, how):
    monkeypatch.setattr(parquet_sizes, "MAX_BATCH_BYTES", 2**20)
    sizes, path = [], tmp_path / "a.parquet"
    monkeypatch.setattr(arrow_rows._Columns, "__init__", spy(arrow_rows._Columns.__init__, sizes))
    pq.write_table(large(300, kind), path, compression="zstd", **how)
    assert path.stat().st_size < 20_000
    assert [row.fields["prompt"] for row in rows_in(str(path))] == [f"{i}" for i in range(300)]
    assert max(sizes) < 2 * 2**20


def list_of(values, num):
    return pa.ListArray.from_arrays([i * len(values) // num for i in range(num + 1)], values)


LISTS = {
    "nulls": list_of(pa.nulls(2_000_000, pa.int8()), 1),
    "numbers": list_of(pa.array([1] * 2_000_000), 3),
    "texts": list_of(pa.array(["x"] * 2_000_000), 3),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_row_that_a_file_hardly_holds_is_not_made(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(parquet_sizes, "MAX_ROW_BYTES", 2**20)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": LISTS[kind]}), path, compression="zstd")
    with pytest.raises(DataError, match="times its size"):
        list(rows_in(str(path)))


def write_arrow(path, table, is_file, compression="zstd"):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(path, table.schema, options=options) as writer:
        writer.write_table(table)


ARROW_BOMBS = {
    "texts": pa.array(["x" * 10**6] * 5),
    "a dictionary": pa.array([f"{i}" + "x" * 10**6 for i in range(5)]).dictionary_encode(),
    "nulls": LISTS["nulls"],
}


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("kind", ARROW_BOMBS)
def test_a_batch_that_a_file_hardly_holds_is_not_unpacked(tmp_path, monkeypatch, kind, is_file):
    monkeypatch.setattr(arrow_messages, "MAX_ROW_BYTES", 2**20)
    path = tmp_path / "a.arrow"
    write_arrow(path, pa.table({"x": ARROW_BOMBS[kind]}), is_file)
    with pytest.raises(DataError, match="times its size"):
        list(rows_in(str(path)))


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_compressed_batches_are_read_whatever_is_in_them(tmp_path, monkeypatch, compression, is_file):
    monkeypatch.setattr(arrow_messages, "MAX_ROW_BYTES", 2**10)
    path, table = (
        tmp_path / "a.arrow",
        pa.table({"prompt": [f"{i}" for i in range(999)], "x": [None, [1], [2, 3]] * 333}),
    )
    table = table.append_column("y", pa.chunked_array([table["prompt"].chunk(0).dictionary_encode()]))
    write_arrow(path, table, is_file, compression)
    assert [dict(row.fields) for row in rows_in(str(path))] == [
        {name: value for name, value in row.items() if value is not None} for row in table.to_pylist()
    ]


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, 2**16), new=st.binary(max_size=4), is_file=st.booleans())
def test_damaged_batches_are_read_or_refused(tmp_path_factory, place, new, is_file):
    path = tmp_path_factory.mktemp("arrow") / "a.arrow"
    table = pa.table({"prompt": ["one", "two"], "x": pa.array(["a", "a"]).dictionary_encode()})
    write_arrow(path, table, is_file)
    content = path.read_bytes()
    place %= len(content)
    path.write_bytes(content[:place] + new + content[place + len(new) :])
    try:
        for row in rows_in(str(path)):
            row.fields.get("prompt")
    except (DataError, Unreadable):
        pass


@pytest.mark.parametrize("encoded", [lambda array: array, lambda array: pc.run_end_encode(array.cast(pa.string()))])
def test_no_more_is_made_of_a_file_than_it_may_mean(tmp_path, monkeypatch, encoded):
    """Each text is small enough for a row; all of them are far more than the file."""
    monkeypatch.setattr(arrow_rows, "MIN_BOMB_BYTES", 2**22)
    path, column = tmp_path / "a.arrow", encoded(repeated("x" * 60_000, 2_000))
    table = pa.table({"prompt": column})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    texts, quarantined = read(path, RowLimits(max_chars=70_000))
    assert 0 < len(texts) < 2_001 and len(texts) + len(quarantined) == 2_001
    assert all("times its size" in cause for _, cause in quarantined)


def spy(init, sizes):
    def spied(self, batch, *others):
        sizes.append(batch.nbytes)
        init(self, batch, *others)

    return spied


def test_small_groups_are_read_many_rows_at_once(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(arrow_rows._Columns, "__init__", spy(arrow_rows._Columns.__init__, sizes))
    pq.write_table(pa.table({"prompt": list(map(str, range(1000)))}), tmp_path / "a.parquet")
    assert sum(1 for _ in rows_in(str(tmp_path / "a.parquet"))) == 1000 and len(sizes) == 4


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", None, "bcd"]),
        pa.array(["a", None, "bcd"]).dictionary_encode(),
        pa.array([["a"], None, ["bcd", "ef"]]),
        pa.array([{"x": "a", "y": [1]}, None]),
        pa.array([[("a", "b")], [("c", "d")]], pa.map_(pa.string(), pa.string())),
        pa.array([["a", "bc"], ["d", "e"]], pa.list_(pa.string(), 2)),
        pa.array(["a", None, "bcd"], pa.string_view()),
        pa.array([["a"], ["bcd"]], pa.list_view(pa.string())),
        pc.run_end_encode(pa.array(["a", "a", "bc"])),
        pa.array([b"a", b"bc"], pa.large_binary()),
        pa.array([1, 2, None]),
        pa.nulls(3),
        pa.ListArray.from_arrays([0, 5, 9], pa.nulls(9)),
        pa.array([], pa.list_(pa.string())),
    ],
    ids=lambda array: str(array.type)[:30],
)
def test_arrays_of_every_kind_are_measured(array):
    if pa.types.is_list(array.type):
        assert num_bytes(array) >= len(array.flatten())
    letters = json.dumps(array.to_pylist(), default=str)
    assert num_bytes(array) >= sum(letters.count(letter) for letter in "abcdef" if "null" not in letters)
    for row in range(len(array)):
        assert num_bytes(array.slice(row, 1)) >= 0


# ----------------------------------------------------------------------------------------------------------- bombs
@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.parquet"])
def test_what_unpacks_to_nothing_but_size_is_refused(tmp_path, monkeypatch, name, suffix, pack):
    monkeypatch.setattr(streams, "MIN_BOMB_BYTES", 2**20)
    monkeypatch.setattr(streams, "MAX_BOMB_RATIO", 200)
    path = Path(tmp_path / f"{name}{suffix}")
    path.write_bytes(pack(b"\n" * 2**24))
    with pytest.raises(DataError, match="times its size") as refusal:
        list(rows_in(str(path)))
    assert "\n" not in str(refusal.value)


def test_a_long_line_that_is_not_utf8_is_judged_in_parts(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt\n" + "Voilà ça va. ".encode("cp1252") * 200_000)
    ((row),) = csv_rows(str(path), 10**7)
    assert row.fields["prompt"].startswith("Voilà ça va.")
