"""Files as they lie on people's disks: each is read right, or refused by one line that says what it is."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.config.source import Source
from rlaif.data.comparisons import read_comparisons
from rlaif.data.files.formats import SUFFIXES
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import BadRow, read_records, rows_in
from rlaif.errors import DataError
from rlaif.seeds import seed_from

HTML = b"<!DOCTYPE html>\n<html><body>404</body></html>\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 123\n"
DEEP = b"[" * 100_000


def zstd(data):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


COMPRESSORS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def arrow_file(table):
    out = pa.BufferOutputStream()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def arrow_stream(table):
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def parquet(table):
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    return out.getvalue().to_pybytes()


def prompt(row):
    if "prompt" not in row.fields:
        raise BadRow(f"field `prompt` is missing; there are {sorted(row.fields)}")
    return row.fields["prompt"]


def written(directory, name, data):
    (directory / name).write_bytes(data)
    return str(directory / name)


def prompts(file, quarantine=pytest.fail):
    return list(read_records(file, prompt, quarantine))


def refusal(file):
    with pytest.raises(DataError) as error:
        prompts(file, lambda row: None)
    message = str(error.value)
    assert message.startswith(f"{file}: ") and "\n" not in message
    return message.removeprefix(f"{file}: ")


TABLE = pa.table({"prompt": ["one", "two"]})
TWO_ROWS = {
    ".jsonl": b'{"prompt": "one"}\n{"prompt": "two"}\n',
    ".ndjson": b'{"prompt": "one"}\n{"prompt": "two"}',
    ".json": b'[{"prompt": "one"}, {"prompt": "two"}]',
    ".csv": b"prompt\none\ntwo\n",
    ".tsv": b"id\tprompt\n1\tone\n2\ttwo\n",
    ".parquet": parquet(TABLE),
    ".arrow": arrow_file(TABLE),
    ".JSONL": b'{"prompt": "one"}\n{"prompt": "two"}\n',
    ".Csv": b"prompt\none\ntwo\n",
}


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("suffix", TWO_ROWS)
def test_every_format_is_read_as_it_is_and_compressed(tmp_path, suffix, compression):
    file = written(tmp_path, f"a{suffix}{compression}", COMPRESSORS[compression](TWO_ROWS[suffix]))
    assert prompts(file) == ["one", "two"]
    assert [row.place for row in rows_in(file)] == [f"{file}:1", f"{file}:2"]


@pytest.mark.parametrize("compression", [name for name in COMPRESSORS if name])
def test_a_compressed_file_that_is_cut_short_is_refused(tmp_path, compression):
    rows = b"".join(json.dumps({"prompt": str(seed_from(i))}).encode() + b"\n" for i in range(5000))
    packed = COMPRESSORS[compression](rows)
    assert "cannot be read" in refusal(written(tmp_path, f"a.jsonl{compression}", packed[: len(packed) // 2]))


def test_compression_is_known_by_content(tmp_path):
    assert prompts(written(tmp_path, "a.jsonl", gzip.compress(TWO_ROWS[".jsonl"]))) == ["one", "two"]
    assert prompts(written(tmp_path, "b.jsonl.gz", TWO_ROWS[".jsonl"])) == ["one", "two"]
    joined = gzip.compress(b'{"prompt": "one"}\n') + gzip.compress(b'{"prompt": "two"}\n')
    assert prompts(written(tmp_path, "c.jsonl.gz", joined)) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", LFS, "is a Git LFS pointer"),
        ("a.parquet", LFS, "is a Git LFS pointer"),
        ("a.jsonl.gz", LFS, "is a Git LFS pointer"),
        ("a.csv", HTML, "is an HTML page"),
        ("a.jsonl", b"\n  <html>", "is an HTML page"),
        ("a.json", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML document"),
        ("a.csv", b"PK\x03\x04...", "is a zip archive or an Office document"),
        ("a.jsonl", TWO_ROWS[".parquet"], "is a parquet file; name it .parquet"),
        ("a.csv", TWO_ROWS[".arrow"], "is an Arrow file; name it .arrow"),
        ("a.jsonl", b'[{"prompt": "a"}]', "holds one JSON array, not an object per line; name it .json"),
        ("a.jsonl", b'[\n {"prompt": "a"}\n]', "holds one JSON array"),
        ("a.jsonl", b'{\n "prompt": "a"\n}\n{\n "prompt": "b"\n}\n', "holds JSON objects spread over lines"),
        ("a.json", b'{\n "prompt": "a"\n}\n', "holds JSON objects spread over lines"),
        ("a.json", b'[{"prompt": "a"}, {"prompt": "b"', "row 2 is not JSON"),
        ("a.json", b'[{"prompt": "a"} {"prompt": "b"}]', "row 1: '{' follows where the JSON array should go on"),
        ("a.json", b'[{"prompt": "a"}', "row 1: the file ends where the JSON array should go on"),
        ("a.json", b'[{"prompt": "a"}] [{"prompt": "b"}]', "text after the end of the JSON array"),
        ("a.json", b"[{" + b'"a": [' * 100_000, "row 1 is not JSON"),
        ("a.json", b"[]", "no rows"),
        ("a.csv", b"prompt,prompt\nfirst,second\n", "column `prompt` is there 2 times"),
        ("a.csv", b"prompt, prompt\nfirst,second\n", "column `prompt` is there 2 times"),
        ("a.csv", b'"prompt"x,y\n1,2\n', "the header is not CSV"),
        ("a.csv", b"prompt,y\n", "no rows"),
        ("a.csv", '\ufeffprompt\n"q"\n'.encode("utf-16-le")[:-1], "cannot be read"),
        ("a.parquet", b"no", "cannot be read as parquet"),
        ("a.parquet", parquet(pa.table([["a"], ["b"]], names=["prompt", "prompt"])), "column `prompt` is there 2"),
        ("a.arrow", b"no", "cannot be read as Arrow"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_for_what_it_is(tmp_path, name, data, message):
    assert message in refusal(written(tmp_path, name, data))


# ------------------------------------------------------------------------------------------------------------ JSON
def test_an_integer_of_any_length_harms_nobody_who_does_not_use_it(tmp_path):
    row = b'{"prompt": "two", "n": ' + b"9" * 5000 + b"}"
    file = written(tmp_path, "a.jsonl", b'{"prompt": "one", "n": 1}\n' + row + b"\n")
    assert prompts(file) == ["one", "two"]
    assert prompts(written(tmp_path, "a.json", b"[" + row + b"]")) == ["two"]


@pytest.mark.parametrize("row", ['{"prompt": "a", "prompt": "b"}', '{"m": [{"prompt": "a", "prompt": "b"}]}'])
def test_a_key_that_is_given_twice_is_one_bad_row(tmp_path, row):
    quarantined = []
    file = written(tmp_path, "a.jsonl", f'{{"prompt": "one"}}\n{row}\n'.encode())
    assert prompts(file, quarantined.append) == ["one"]
    assert [(bad.row, bad.cause) for bad in quarantined] == [(2, "field `prompt` is given twice")]


MAPS = pa.list_(pa.map_(pa.string(), pa.string()))
TWICE = [("role", "user"), ("content", "one"), ("content", "two")]
TWICE_IN_JSON = '[{"role": "user", "content": "one", "content": "two"}]'
TWICE_IN_PYTHON = "[{'role': 'user', 'content': 'one', 'content': 'two'}]"
ASKED = [("role", "user"), ("content", "one")]


@pytest.mark.parametrize("write", [parquet, arrow_file, arrow_stream])
def test_a_key_that_a_map_has_twice_is_one_bad_row(tmp_path, write):
    quarantined = []
    suffix = ".parquet" if write is parquet else ".arrow"
    file = written(tmp_path, f"a{suffix}", write(pa.table({"prompt": pa.array([[ASKED], [TWICE], [ASKED]], MAPS)})))
    read = read_prompts(file, "red_team", quarantined.append)
    assert [prompt.turns[-1].text for prompt in read] == ["one", "one"]
    assert [(bad.row, bad.cause) for bad in quarantined] == [(2, "field `content` is given twice")]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (TWICE_IN_JSON, None),
        (TWICE_IN_PYTHON, None),
        (json.dumps(TWICE_IN_JSON), None),
        (TWICE_IN_JSON, "prompt.0.content"),
        (TWICE_IN_PYTHON, "prompt.0.content"),
    ],
)
def test_a_key_that_messages_in_text_have_twice_is_one_bad_row(tmp_path, value, path):
    quarantined = []
    rows = [{"prompt": text} for text in (json.dumps([dict(ASKED)]), value, json.dumps([dict(ASKED)]))]
    file = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)).encode())
    read = read_prompts(Source(path=file, prompt=path), "red_team", quarantined.append)
    assert [prompt.turns[-1].text for prompt in read] == ["one", "one"]
    assert [bad.row for bad in quarantined] == [2] and "field `content` is given twice" in quarantined[0].cause


@pytest.mark.parametrize("answer", ['{"a": 1, "a": 2}', "{'a': 1, 'a': 2}"])
def test_an_answer_may_be_code_that_gives_a_key_twice(tmp_path, answer):
    row = {"prompt": "one", "answer_1": answer, "answer_2": "b"}
    file = written(tmp_path, "a.jsonl", json.dumps(row).encode())
    assert [pair.answer_1 for pair in read_comparisons(file, pytest.fail)] == [answer]


def test_a_json_file_may_hold_lines(tmp_path):
    file = written(tmp_path, "a.json", b'\xef\xbb\xbf{"prompt": "one"}\n\n{"prompt": "two"}\n')
    assert [(row.number, row.fields["prompt"]) for row in rows_in(file)] == [(1, "one"), (3, "two")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 2**20])
def test_an_array_is_read_piece_by_piece(tmp_path, monkeypatch, size):
    monkeypatch.setattr("rlaif.data.files.json_rows._CHUNK_CHARS", size)
    rows = [{"prompt": 'a [b] {c} \\ " é 漢'}, 12, {"prompt": "", "n": [1, {"x": None}]}, "text"]
    for indent in (None, 2):
        file = written(tmp_path, "a.json", ("\n" + json.dumps(rows, indent=indent) + "\n ").encode())
        if size < 3:  # the first piece must show that it is an array
            monkeypatch.setattr("rlaif.data.files.json_rows.layout_of", lambda file: "array")
        assert [row.fields for row in rows_in(file)] == [rows[0], {}, rows[2], {}]
        assert [row.mistake for row in rows_in(file)] == [None, "the row is not a JSON object"] * 2


def test_a_row_of_an_array_that_is_not_utf8_is_one_bad_row(tmp_path):
    quarantined = []
    file = written(tmp_path, "a.json", b'[{"prompt": "one"}, {"prompt": "\xff"}, {"prompt": "three"}]')
    assert prompts(file, quarantined.append) == ["one", "three"]
    assert quarantined[0].cause == "the row is not UTF-8 text"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", '{"prompt": "né 漢"}\n'), ("a.csv", "prompt,y\nné 漢,1\n")])
def test_unicode_in_every_encoding(tmp_path, encoding, name, text):
    assert prompts(written(tmp_path, name, text.encode(encoding))) == ["né 漢"]


# ------------------------------------------------------------------------------------------------------------- CSV
@pytest.mark.parametrize(
    "text",
    [
        "id;prompt\r\n1;one, two\r\n2;three\r\n",
        "id\tprompt\n1\tone, two\n2\tthree\n",
        'id,prompt\n1,"one, two"\n2,three\n',
        'sep=;\r\nid;prompt\r\n1;"one, two"\r\n2;three\r\n',
        '"sep=|"\nid|prompt\n1|one, two\n2|three\n',
        "\ufeffid;prompt\r1;one, two\r2;three\r",
        "\n\nid;Prompt \n1;one, two\n\n2;three\n",
        ' PROMPT ,,\n"one, two",,\nthree,,\n',
        "a;prompt;e,f\n1;one, two;\n2;three;\n",
        'prompt,a;b;c\n"one, two",1\nthree,2\n',
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_tables_of_people(tmp_path, text, suffix):
    file = written(tmp_path, f"a{suffix}", text.encode())
    assert prompts(file) == ["one, two", "three"]
    assert [row.number for row in rows_in(file)] == [1, 2]


def test_names_in_capitals_stay_two_columns_when_there_are_two(tmp_path):
    (row,) = rows_in(written(tmp_path, "a.csv", b"Prompt,prompt,ID\nfirst,second,1\n"))
    assert dict(row.fields) == {"Prompt": "first", "prompt": "second", "id": "1"}
    assert row.fields["ID"] == "1"


def test_an_empty_cell_is_absent(tmp_path):
    """Where tables are united, each row has the columns of all."""
    (row,) = rows_in(written(tmp_path, "a.csv", b"prompt,gold,y\nq,,0\n"))
    assert dict(row.fields) == {"prompt": "q", "y": "0"}
    table = pa.table({"prompt": ["q", None], "messages": [None, [{"role": "user", "content": "q"}]]})
    rows = list(rows_in(written(tmp_path, "a.parquet", parquet(table))))
    assert [sorted(row.fields) for row in rows] == [["prompt"], ["messages"]]
    assert "gold" not in rows[0].fields and rows[0].fields.get("messages") is None and len(rows[0].fields) == 1


def test_windows_text_is_read_where_it_surely_is_windows_text(tmp_path):
    file = written(tmp_path, "a.csv", "prompt;y\nWie heißt Äpfel auf Französisch – “pommes”?;1\n".encode("cp1252"))
    assert prompts(file) == ["Wie heißt Äpfel auf Französisch – “pommes”?"]


@pytest.mark.parametrize(
    ("text", "code_page"),
    [("Привет, как дела?", "cp1251"), ("zażółć", "cp1250"), ("café", "mac_roman"), ("漢字", "gb18030")],
)
def test_text_in_an_unknown_code_page_is_never_guessed(tmp_path, text, code_page):
    file = written(tmp_path, "a.csv", f'prompt,y\nfine,1\n"{text}",1\n'.encode(code_page))
    texts = prompts(file)
    assert texts[0] == "fine"
    with pytest.raises(UnicodeEncodeError):  # lone surrogates, which the check of a text field refuses
        texts[1].encode()


def test_one_bad_byte_does_not_turn_utf8_into_windows_text(tmp_path):
    file = written(tmp_path, "a.csv", "prompt,y\nné,1\n".encode() + b"caf\xe9,1\n")
    assert prompts(file) == ["né", "caf\udce9"]


# ---------------------------------------------------------------------------------------------------- columnar files
def text_column(*values):
    """A column that says it is text, whatever its bytes are."""
    return pa.array(values, pa.binary()).view(pa.string())


@pytest.mark.parametrize(("suffix", "write"), [(".parquet", parquet), (".arrow", arrow_file), (".arrow", arrow_stream)])
def test_text_that_is_not_utf8_costs_only_the_rows_that_use_it(tmp_path, suffix, write):
    table = pa.table({"prompt": text_column(b"fine", b"caf\xe9", b"also fine"), "url": text_column(b"\xff", b"", b"")})
    quarantined = []
    assert prompts(written(tmp_path, f"a{suffix}", write(table)), quarantined.append) == ["fine", "also fine"]
    assert [(bad.row, bad.cause) for bad in quarantined] == [(2, "field `prompt` is not UTF-8 text")]


def test_a_value_that_python_cannot_hold_costs_only_the_rows_that_use_it(tmp_path):
    table = pa.table({"prompt": ["a", "b"], "when": pa.array([0, 2**62], pa.timestamp("us"))})
    file = written(tmp_path, "a.parquet", parquet(table))
    assert prompts(file) == ["a", "b"]
    quarantined = []
    assert len(list(read_records(file, lambda row: row.fields["when"], quarantined.append))) == 1
    assert "field `when` cannot be read" in quarantined[0].cause


def test_a_corrupted_column_does_not_end_the_process(tmp_path):
    text = pa.array(["one", "two"])
    offsets = pa.py_buffer((0).to_bytes(4, "little") + (2**30).to_bytes(4, "little") + (6).to_bytes(4, "little"))
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, text.buffers()[2]])
    file = written(tmp_path, "a.arrow", arrow_file(pa.table({"prompt": column})))
    assert "field `prompt` is corrupted" in refusal(file)


def test_large_batches_are_read(tmp_path):
    table = pa.table({"prompt": [str(i) for i in range(1000)]})
    assert prompts(written(tmp_path, "a.arrow", arrow_stream(table))) == [str(i) for i in range(1000)]


# -------------------------------------------------------------------------------------------------------- any bytes
ANYTHING = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [b'{"prompt": "a"}', b"[", b"]", b",", b";", b"\n", b"\r", b'"', b"\0", b"\xff", b"\xef\xbb\xbf", b"{",
             b"1", b"prompt", b"sep=;", b"9" * 5000, DEEP[:5000], b"PAR1",
             b"ARROW1\0\0", b"\x1f\x8b", b"BZh9", "é".encode()]
        ),
        max_size=12,
    ).map(b"".join),
)  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=150)
@given(data=ANYTHING)
def test_no_file_escapes(tmp_path_factory, suffix, data):
    """Every row is a record or quarantined, or the file is refused in one line."""
    file = written(tmp_path_factory.getbasetemp(), f"any{suffix}", data)
    records, quarantined = [], []
    try:
        records.extend(read_records(file, prompt, quarantined.append))
    except DataError as error:
        assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
    else:
        assert len(records) + len(quarantined) == sum(1 for _ in rows_in(file)) > 0
