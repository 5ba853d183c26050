import json
import sys
from collections import Counter
from contextlib import suppress
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.data.comparisons import read_comparisons
from rlaif.data.files.raw_rows import MAX_REASON_CHARS
from rlaif.data.files.sources import files_of
from rlaif.data.overview import survey
from rlaif.data.pairs import read_pairs
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import BadRow, read_records, rows_of
from rlaif.data.votes import read_votes
from rlaif.errors import DataError


def take_x(row):
    if "x" not in row.fields:
        raise BadRow("field `x` is missing")
    return row.place, row.fields["x"]


def test_jsonl_numbers_are_line_numbers_and_blank_lines_count(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"x": "1"}\n\n{"x": "\u2028 stays one row"}\n')
    assert list(read_records(str(file), take_x, pytest.fail)) == [
        (f"{file}:1", "1"),
        (f"{file}:3", "\u2028 stays one row"),
    ]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"{broken", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"y": 1}', "`x` is missing"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_row_is_quarantined_by_name_and_the_rest_is_read(tmp_path, line, cause):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"x": 1}\n' + line + b'\n{"x": 3}\n')
    quarantined = []
    assert [x for _, x in read_records(str(file), take_x, quarantined.append)] == [1, 3]
    (bad,) = quarantined
    assert (bad.id, bad.file, bad.row, bad.stage) == (f"{file}:2", str(file), 2, "read")
    assert cause in bad.cause


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no rows"), ("\n \n", "no rows"), ('{"y": 1}\n{"y": 2}\n', "row 1: field `x` is missing")],
)
def test_a_file_without_a_usable_row_is_refused(tmp_path, content, message):
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_records(str(file), take_x, lambda bad: None))
    assert str(file) in str(error.value)


def test_one_hopeless_file_in_a_directory_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "b.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"b\.jsonl: every row is unusable"):
        list(read_records(str(tmp_path), take_x, lambda bad: None))


@pytest.mark.parametrize("name", ["gone.jsonl", "notes.xyz", "empty_directory"])
def test_an_unusable_source_is_refused_by_name(tmp_path, name):
    (tmp_path / "notes.xyz").write_text("x")
    (tmp_path / "empty_directory").mkdir()
    with pytest.raises(DataError, match=name):
        files_of(str(tmp_path / name))


def test_a_directory_is_read_in_the_order_of_names_whatever_holds_the_rows(tmp_path):
    (tmp_path / "b.csv").write_text('x\n"two, with ""quotes""\nand a line"\n')
    (tmp_path / "a.jsonl").write_text('{"x": "one"}\n')
    pq.write_table(pa.table({"x": ["three", "four"]}), tmp_path / "c.parquet")
    (tmp_path / "README.md").write_text("not data")
    records = list(read_records(str(tmp_path), take_x, pytest.fail))
    assert [x for _, x in records] == ["one", 'two, with "quotes"\nand a line', "three", "four"]
    assert [id.rpartition("/")[2] for id, _ in records] == ["a.jsonl:1", "b.csv:1", "c.parquet:1", "c.parquet:2"]


def test_parquet_batches_keep_counting(tmp_path):
    pq.write_table(pa.table({"x": list(range(1000))}), tmp_path / "a.parquet", row_group_size=300)
    records = list(read_records(str(tmp_path / "a.parquet"), take_x, pytest.fail))
    assert [int(id.rpartition(":")[2]) for id, _ in records] == list(range(1, 1001))
    assert [x for _, x in records] == list(range(1000))


def test_a_file_that_is_not_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read as parquet"):
        list(rows_of(str(tmp_path / "a.parquet"), Counter(), 10**6))


@pytest.mark.parametrize(
    ("row", "problem"),
    [("1,2,3", "more cells"), ("1", "before column `y`"), ('"1"2,3', "not CSV")],
)
def test_a_malformed_csv_row_is_one_bad_row(tmp_path, row, problem):
    (tmp_path / "a.csv").write_text(f"x,y\n1,2\n{row}\n3,4\n")
    quarantined = []
    rows = list(read_records(str(tmp_path / "a.csv"), take_x, quarantined.append))
    assert [x for _, x in rows] == ["1", "3"]
    assert problem in quarantined[0].cause


def test_an_open_quote_that_swallows_the_rest_of_a_csv_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text('x,y\n1,2\n"3,4\n5,6\n')
    with pytest.raises(DataError, match="row 2: a quote is opened and never closed"):
        list(rows_of(str(tmp_path / "a.csv"), Counter(), 10**6))


def test_long_csv_cells_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("x\n" + "a" * 200_000 + "\n")
    assert len(next(rows_of(str(tmp_path / "a.csv"), Counter(), 10**6)).fields["x"]) == 200_000


def test_reading_streams(tmp_path):
    """Each record must come before any later row is parsed."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"x": 1}\n' * 100_000)
    seen = []

    def parse(row):
        seen.append(row.number)
        return row.number

    records = read_records(str(file), parse, pytest.fail)
    assert [next(records), next(records)] == [1, 2]
    assert seen == [1, 2]


def test_a_hugging_face_data_set_is_read_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "train.jsonl").write_text(json.dumps({"x": "one"}) + "\n" + json.dumps({"x": "two"}) + "\n")
    rows = list(rows_of(f"hf:{tmp_path}", Counter(), 10**6))
    assert [(row.number, row.fields) for row in rows] == [(1, {"x": "one"}), (2, {"x": "two"})]
    with pytest.raises(DataError, match="hf:no_such_directory/at_all"):
        list(rows_of("hf:no_such_directory/at_all", Counter(), 10**6))


# ------------------------------------------------------------------------------------------------------ odd values
GOOD = '{"prompt": "q", "answer_1": "a", "answer_2": "b"}'
MESSAGE = '{"prompt": [{"role": %s, "content": %s}], "answer_1": "a", "answer_2": "b"}'
ODD_ROWS = {
    "role": lambda value: MESSAGE % (value, '"x"'),
    "content": lambda value: MESSAGE % ('"user"', value),
    "part": lambda value: MESSAGE % ('"user"', f'[{{"type": {value}, "text": "x"}}]'),
    "system": lambda value: f'{{"prompt": "q", "system": {value}, "sys": {value}, "answer_1": "a", "answer_2": "b"}}',
    "winner": lambda value: f'{{"prompt": "q", "response_a": "a", "response_b": "b", "winner": {value}}}',
    "answer": lambda value: f'{{"prompt": "q", "answer_1": {value}, "answer_2": "b"}}',
    "votes": lambda value: (
        f'{{"question": "q", "answers": [{{"text": "a", "votes": 1, "accepted": {value}}}, {value}]}}'
    ),
}


def read_odd(tmp_path, rows):
    """How many rows each reader reads of rows with a good one at both ends, and all that it says of the others."""
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([GOOD, *rows, GOOD]))
    readers = (partial(read_prompts, axis="red_team"), read_comparisons, read_pairs, read_votes)
    overview = survey(str(file))
    causes = [words.words for use in overview.uses for words in use.causes.values()]
    for read in readers:
        quarantined = []
        with suppress(DataError):  # no reader but two knows the good rows
            numbers = [record.source_row for record in read(str(file), quarantine=quarantined.append)]
            assert {1, len(rows) + 2} <= set(numbers)
        causes += [row.cause for row in quarantined]
    assert overview.stopped is None and overview.num_rows == len(rows) + 2
    return causes


@pytest.mark.parametrize("place", ODD_ROWS)
def test_a_value_of_any_depth_costs_only_its_row(tmp_path, place):
    """JSON is decoded at one depth of the stack; what is then done with it may need more of it."""
    depths = range(sys.getrecursionlimit() - 200, sys.getrecursionlimit())
    assert read_odd(tmp_path, [ODD_ROWS[place]("[" * depth + "]" * depth) for depth in depths])


def test_a_row_that_is_too_deep_for_its_reader_is_quarantined_alone(tmp_path):
    def follow(row):
        return row.number if row.number != 2 else follow(row)

    file, quarantined = tmp_path / "a.jsonl", []
    file.write_text(f"{GOOD}\n" * 3)
    assert list(read_records(str(file), follow, quarantined.append)) == [1, 3]
    assert [(row.row, row.cause) for row in quarantined] == [(2, "the row is nested too deeply")]


@pytest.mark.parametrize("place", ODD_ROWS)
@pytest.mark.parametrize("value", ['"%s"', '["%s"]', '{"%s": 1}'])
def test_causes_quote_little(tmp_path, place, value):
    long = value % ("x" * 100_000)
    causes = read_odd(tmp_path, [ODD_ROWS[place](long), f'{{"{"y" * 100_000}": 1}}'])
    assert causes and max(map(len, causes)) <= MAX_REASON_CHARS
