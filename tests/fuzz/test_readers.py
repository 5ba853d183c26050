"""Generated files through every reader: 120,000 of them, in every format, packed in every way.

``make fuzz``; NUM_FILES says how many of each format. The quick suites have the same properties in small.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.comparisons import read_comparisons
from rlaif.data.pairs import read_pairs
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import rows_in
from rlaif.data.votes import read_votes
from rlaif.errors import DataError
from tests.fuzz.generation import inputs

NUM_FILES = int(os.environ.get("NUM_FILES", "20000"))
READERS = {
    "prompts": lambda file, bad: read_prompts(file, "red_team", bad),
    "pairs": read_pairs,
    "comparisons": read_comparisons,
    "votes": read_votes,
}
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}

#: Names that readers know, in the spellings that files have.
NAMES = st.sampled_from(
    (
        *("prompt", "Prompt", " prompt", "messages", "conversations", "chosen", "rejected", "answer_1", "answer_2"),
        *("gold", "question", "answers", "system", "input", "instruction", "response", "responses", "scores"),
        *("completions", "response_0", "response_1", "better_response_id", "output", "history", "transcript", "x", ""),
    )
)
SPECIAL = st.sampled_from(
    (
        "\n\nHuman: hi\n\nAssistant: yes",
        "Human: a\nAssistant: b\nHuman: c",
        "USER: a ASSISTANT: b",
        "\\n\\nHuman: a\\n\\nAssistant: b",
        "<|im_start|>user\nhi<|im_end|>",
        "[INST] a",
        '[{"role": "user", "content": "hi"}]',
        "[{'role': 'user', 'content': 'hi'}]",
        *("\ud800", "\0", "\u2028", "é", " ", "=1+1", "nan", "1e999", "9" * 5000, "[" * 3000),
    )
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12), SPECIAL)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "", None, 3])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": SCALARS}), max_size=4)
ANSWERS = st.lists(st.fixed_dictionaries({"text": SCALARS, "votes": SCALARS, "accepted": SCALARS}), max_size=3)
VALUES = st.one_of(
    SCALARS, MESSAGES, ANSWERS, st.lists(SCALARS, max_size=3), st.dictionaries(NAMES, SCALARS, max_size=2)
)
WORDS = st.text("ab \n.é", min_size=1, max_size=8).map(lambda text: f"a{text}")
GOOD_ANSWERS = st.lists(st.fixed_dictionaries({"text": WORDS, "votes": st.integers(-3, 90)}), min_size=2, max_size=3)
GOOD_ROWS = st.one_of(
    st.fixed_dictionaries({"prompt": WORDS}),
    st.fixed_dictionaries({"messages": st.tuples(st.fixed_dictionaries({"role": st.just("user"), "content": WORDS}))}),
    st.fixed_dictionaries({"prompt": WORDS, "chosen": WORDS, "rejected": WORDS}),
    st.fixed_dictionaries({"prompt": WORDS, "answer_1": WORDS, "answer_2": WORDS}),
    st.fixed_dictionaries({"question": WORDS, "answers": GOOD_ANSWERS}),
)
BAD_ROWS = st.dictionaries(NAMES, VALUES, max_size=4)
ROWS = st.one_of(
    *(st.lists(st.one_of(rows, rows, BAD_ROWS), min_size=1, max_size=5) for rows in (GOOD_ROWS, GOOD_ROWS)),
    st.lists(st.builds(lambda good, bad: good | bad, GOOD_ROWS, BAD_ROWS), min_size=1, max_size=4),
)
NOISE = st.sampled_from(
    [b"", b"", b"", b"\n", b"{", b'"', b"\xff", b"\xef\xbb\xbf", b"\x00", b"sep=;\n", b"[", b",,\n"]
)


def json_lines(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def separated(sign: str, rows: list[dict]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["prompt"]
    cells = [
        [row.get(name) if isinstance(row.get(name), str) else json.dumps(row.get(name)) for name in names]
        for row in rows
    ]
    quoted = [sign.join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in (names, *cells)]
    return "\n".join(quoted).encode("utf-8", "surrogatepass")


def table(rows: list[dict]) -> pa.Table:
    """The columns that Arrow and parquet can hold; others become JSON."""
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
            pq.write_table(pa.table({"x": columns[name]}), io.BytesIO())
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            columns[name] = pa.array([json.dumps(value).encode() for value in values]).view(pa.binary())
    return pa.table(columns or {"prompt": pa.array([None] * len(rows), pa.string())})


def parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(rows), sink)
    return sink.getvalue()


def arrow(rows: list[dict]) -> bytes:
    sink, made = io.BytesIO(), table(rows)
    options = pa.ipc.IpcWriteOptions(compression="zstd" if len(rows) % 2 else None)
    with pa.ipc.new_file(sink, made.schema, options=options) as writer:
        writer.write_table(made)
    return sink.getvalue()


FORMATS = {
    ".jsonl": json_lines,
    ".json": lambda rows: json.dumps(rows).encode(),
    ".csv": lambda rows: separated(",", rows),
    ".tsv": lambda rows: separated("\t", rows),
    ".parquet": parquet,
    ".arrow": arrow,
}


@pytest.fixture(scope="module")
def outcomes():
    """How many files were read or refused, which is printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    print("\n" + "\n".join(f"{name}: {number:,}" for name, number in sorted(counts.items())))


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_file_escapes_any_reader(suffix, tmp_path_factory, outcomes):
    directory = tmp_path_factory.mktemp("fuzz")

    @inputs(NUM_FILES)
    @given(rows=ROWS, before=NOISE, after=NOISE, packed=st.sampled_from(list(COMPRESSIONS)), cut=st.integers(0, 400))
    def every_row_is_a_record_or_quarantined_or_the_file_is_refused(rows, before, after, packed, cut):
        content = before + FORMATS[suffix](rows) + after
        content = COMPRESSIONS[packed](content if cut > 40 else content[: len(content) - cut])
        file = str(directory / f"a{suffix}{packed}")
        Path(file).write_bytes(content)
        for name, read in READERS.items():
            outcomes[f"{name} {check(read, file)}"] += 1

    every_row_is_a_record_or_quarantined_or_the_file_is_refused()


def check(read, file: str) -> str:
    """Raises anything but the project's own refusal of a whole file."""
    records, quarantined = [], []
    try:
        records.extend(read(file, quarantined.append))
    except DataError as error:
        assert str(error).startswith(file) and "\n" not in str(error), error
        return "refused"
    assert len(records) + len(quarantined) == sum(1 for _ in rows_in(file)) > 0
    assert len({record.id for record in records}) == len(records)
    return "read"
