import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.evaluation.audit.sample import Pair
from rlaif.evaluation.audit.sheet import MAX_CELL_CHARS, harmless, read_verdicts, reading_page, sheet
from rlaif.records import Turn

IDS = frozenset({"pair-1", "pair-2", "pair-3"})


def pair(**changed):
    fields = {"id": "pair-1", "label_id": "a.jsonl:7", "stratum": "60-75%, orders agree", "prob": 0.6789}
    fields |= {"answer_1": "right", "conversation": (Turn(role="human", text="Why?"),), "left": "No.", "right": "Yes."}
    return Pair(**(fields | changed))


def cells(text):
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


@pytest.fixture
def filled(tmp_path):
    def write(text, encoding="utf-8", name="filled.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def verdicts(path):
    return {judged.id: judged.verdict for judged in read_verdicts(path, IDS)}


# ------------------------------------------------------------------------------------------------- for the judge
def test_the_sheet_is_what_spreadsheets_read():
    text = sheet([pair(left='He said "no",\r\nthen left.', right="a;b")])
    assert text.startswith('\ufeff"id","conversation","answer_left","answer_right","verdict","comment"\r\n')
    assert text.count("\r\n") == 2
    (row,) = cells(text)
    assert row == {
        "id": "pair-1",
        "conversation": "Human: Why?",
        "answer_left": 'He said "no",\nthen left.',
        "answer_right": "a;b",
        "verdict": "",
        "comment": "",
    }


@pytest.mark.parametrize("show", [sheet, reading_page])
def test_the_judge_sees_nothing_of_the_label(show):
    shown = show([pair()])
    for hidden in ("0.6789", "67.", "a.jsonl", "60-75", "orders agree", "answer_1", "answer_2"):
        assert hidden not in shown
    assert show([pair(prob=0.1234, answer_1="left", stratum="75-90%, orders flip")]) == shown


BLANKS = ["", " ", "\t", "\r", "\n", "\r\n", "\v", "\f", "\x00", "\x1f", "\x85", "\xa0", "\u3000", "\u200b", "\ufeff"]
BLANKS += ["\u2028", "\u202e", '"', '""', ' "\xa0']
BREAKS = [",", ";", "\t", "\n", "\r", "\r\n"]
FORMULAS = ["=", "+", "-", "@", "＝", "＋", "－", "＠", "﹦", "−"]


def begins_formula(cell):
    """What the most lenient spreadsheet sees: the first character that it would not drop."""
    shown = "".join(c for c in cell if c != '"' and c.isprintable() and not c.isspace())
    return shown[:1] in {*"=+-@＝＋－＠﹢﹣﹦﹫⁺⁻⁼₊₋₌−"} - {""}


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("formula", FORMULAS)
def test_no_text_begins_as_a_formula(blank, formula):
    cell = harmless(f'{blank}{formula}HYPERLINK("http://x","y")')
    assert not begins_formula(cell)
    assert not set(cell) & {"\r", "\v", "\x00"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("before", BREAKS)
@pytest.mark.parametrize("blank", BLANKS)
def test_no_cell_is_a_formula_whichever_delimiter_a_spreadsheet_expects(delimiter, before, blank):
    text = "Fine" + "".join(f"{before}{blank}{formula}cmd|'/c calc'!A1" for formula in FORMULAS)
    shown = sheet([pair(left=text, right=text, conversation=(Turn(role="human", text=text),))])
    for cells_of_row in csv.reader(io.StringIO(shown.removeprefix("\ufeff"), newline=""), delimiter=delimiter):
        assert not any(map(begins_formula, cells_of_row))
    for line in shown.splitlines():  # a program that knows no quotes
        assert not any(map(begins_formula, line.split(delimiter)))


@given(st.lists(st.sampled_from([*BLANKS, *BREAKS, *FORMULAS, "a", "'", "1"])).map("".join))
def test_no_mixture_of_these_is_a_formula(text):
    shown = sheet([pair(left=text, right=text)])
    for delimiter in ",;\t":
        for cells_of_row in csv.reader(io.StringIO(shown.removeprefix("\ufeff"), newline=""), delimiter=delimiter):
            assert not any(map(begins_formula, cells_of_row))


def test_harmless_text_stays_as_it_is():
    assert harmless("1 + 1 = 2, said - not @ all -\n2; 3\tx") == "1 + 1 = 2, said - not @ all -\n2; 3\tx"


@given(
    st.lists(st.sampled_from([*BLANKS, *BREAKS, *FORMULAS, "a", "é"])).map("".join),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8-sig", "utf-16"]),
)
def test_a_judged_sheet_comes_back_whatever_its_texts_were(tmp_path_factory, text, delimiter, encoding):
    rows = cells(sheet([pair(left=text), pair(id="pair-2", right=text)]))
    for row, verdict in zip(rows, ("left", "tie"), strict=True):
        row["verdict"] = verdict
    saved = io.StringIO()
    writer = csv.DictWriter(saved, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("judged") / "audit.csv"
    path.write_bytes(saved.getvalue().encode(encoding))
    assert verdicts(path) == {"pair-1": "left", "pair-2": "tie"}


def test_a_text_longer_than_a_cell_is_cut_in_the_sheet_and_whole_in_the_page():
    long = "😀" * MAX_CELL_CHARS + "end"
    (row,) = cells(sheet([pair(left=long)]))
    assert len(row["answer_left"].encode("utf-16-le")) // 2 < 32_767
    assert "audit.html" in row["answer_left"]
    assert long in reading_page([pair(left=long)])


def test_the_page_runs_nothing_and_numbers_pairs_as_the_sheet_does():
    shown = reading_page([pair(left="<script>alert(1)</script>"), pair(id="pair-2", right="{{ 1 + 1 }}")])
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert "{{ 1 + 1 }}" in shown
    assert re.findall(r"Row (\d+).*?(pair-\d)<", shown) == [("2", "pair-1"), ("3", "pair-2")]


# -------------------------------------------------------------------------------------------------- from the judge
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_sheet_comes_back_however_a_spreadsheet_saved_it(filled, delimiter, encoding):
    rows = [
        ["Verdict", "my notes", "ID", "comment"],
        ["LEFT", "x", "pair-1", "schön, sehr; gut"],
        [" tie ", "", "pair-2", ""],
        ["", "later", "pair-3", ""],
        ["", "", "", ""],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    found = read_verdicts(filled(text.getvalue(), encoding), IDS)
    assert [(j.row, j.id, j.verdict, j.comment) for j in found] == [
        (2, "pair-1", "left", "schön, sehr; gut"),
        (3, "pair-2", "tie", ""),
    ]


def test_short_verdicts(filled):
    path = filled("id,verdict\npair-1,1\npair-2,2\npair-3,=\n")
    assert verdicts(path) == {"pair-1": "left", "pair-2": "right", "pair-3": "tie"}


@pytest.mark.parametrize(
    ("left", "right", "tie"),
    [
        ("1.0", "2.0", "="),
        ("1,0", "2,00", "tie"),
        ("'1", "'2", "'="),
        ("'Left", "'RIGHT", "'tie"),
        ("1.000", "'2.0", "="),
    ],
)
def test_verdicts_as_programs_write_them(filled, left, right, tie):
    """A numeric column with blanks gets decimals; the sheet itself teaches the apostrophe."""
    path = filled(f"id;verdict\npair-1;{left}\npair-2;{right}\npair-3;{tie}\n")
    assert verdicts(path) == {"pair-1": "left", "pair-2": "right", "pair-3": "tie"}


@pytest.mark.parametrize("verdict", ["1.5", "10", "1.", "3.0", "0.0", "'", "12,0", "equal", "A", "both"])
def test_what_is_no_verdict_is_still_none(filled, verdict):
    with pytest.raises(DataError, match="row 2, column verdict"):
        verdicts(filled(f"id;verdict\npair-1;{verdict}\n"))


@pytest.mark.parametrize("start", ["sep=;\n", "SEP=;\r\n", "\ufeffsep=;\r\n"])
def test_a_first_line_may_declare_the_delimiter(filled, start):
    (judged,) = read_verdicts(filled(f"{start}id;a,b,c,d;verdict\npair-1;x;left\n"), IDS)
    assert (judged.row, judged.verdict) == (2, "left")  # spreadsheets do not show that line


def test_rows_that_lost_their_last_cells_are_not_judged(filled):
    assert verdicts(filled("id,text,verdict,comment\npair-1,x\npair-2,x,right\n")) == {"pair-2": "right"}


def test_every_problem_is_named_at_once_with_its_row_in_the_spreadsheet(filled):
    path = filled(
        'id,text,verdict\npair-1,"two\nlines",left\n\npair-9,x,left\npair-2,x,better\npair-1,x,\n,x,left\npair-8,x,?\n'
    )
    with pytest.raises(DataError) as caught:
        read_verdicts(path, IDS)
    lines = str(caught.value).split("\n")
    assert [line.split(";")[0] for line in lines] == [
        f"{path}: row 4, column id: 'pair-9' is not from this run's last export",
        f"{path}: row 5, column verdict: 'better' is not left, right or tie (or 1, 2, =)",
        f"{path}: row 6, column id: 'pair-1' is also in row 2",
        f"{path}: row 7, column id: empty, but the row has a verdict",
        f"{path}: row 8, column id: 'pair-8' is not from this run's last export",
        f"{path}: row 8, column verdict: '?' is not left, right or tie (or 1, 2, =)",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "row 1, column id: missing"),
        ("id,comment\npair-1,x\n", "row 1, column verdict: missing"),
        ("id,verdict,Verdict\npair-1,left,right\n", "row 1, column verdict: more than once"),
        ("id,verdict\npair-1,\n", "column verdict: no row has a verdict"),
        ('id,verdict\npair-1,left\npair-2,"left\n', "row 3: not CSV"),
        ("PK\x03\x04 what an .xlsx begins with", "row 1, column id: missing; a sheet is CSV"),
    ],
)
def test_a_file_that_is_no_filled_sheet_is_refused(filled, text, problem):
    path = filled(text)
    with pytest.raises(DataError) as caught:
        read_verdicts(path, IDS)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.csv: cannot be read: No such file"):
        read_verdicts(tmp_path / "nothing.csv", IDS)
