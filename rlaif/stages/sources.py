"""The sources of a run, read from the first row to the last before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from rlaif.config.contradictions import flatten
from rlaif.config.keys import SUITE_KEYS
from rlaif.data.files.sources import passed_over
from rlaif.data.rows import Quarantine, pass_over
from rlaif.records import Axis, SuiteName
from rlaif.stages.bookkeeping import account
from rlaif.stages.user_data import UserData
from rlaif.storage.changes import RowToRecord, SourceChange
from rlaif.storage.journal import Journal
from rlaif.storage.run_dir import RunDir


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Under which kind the rows of a source are accounted for, and how they are read."""

    kind: str
    read: Callable[[UserData, Quarantine], Iterator[RowToRecord]]


def _prompts(axis: Axis) -> Reading:
    return Reading(kind=f"prompts_{axis}", read=lambda data, quarantine: data.prompts(axis, quarantine))


def _held_out(axis: Axis) -> Reading:
    return Reading(kind=f"held_out_{axis}", read=lambda data, quarantine: data.held_out_prompts(axis, quarantine))


def _suite(name: SuiteName) -> Reading:
    return Reading(kind=f"suite_{name}", read=lambda data, quarantine: data.suite_prompts(name, quarantine))


#: By configuration key.
SOURCES: Mapping[str, Reading] = {
    "data.red_team": _prompts("red_team"),
    "data.helpful": _prompts("helpful"),
    "data.helpful_pairs": Reading(kind="helpful_pairs", read=UserData.pairs),
    "data.votes": Reading(kind="votes", read=UserData.votes),
    "data.comparisons": Reading(kind="pairs", read=UserData.comparisons),
    "evaluation.red_team": _held_out("red_team"),
    "evaluation.helpful": _held_out("helpful"),
    "evaluation.answers": Reading(kind="finished_answers", read=UserData.finished_answers),
    **{key: _suite(name) for name, key in SUITE_KEYS.items()},
}


def find_changes(data: UserData, journal: Journal, key: str) -> SourceChange:
    """Read a source to its end, and say what has changed since the run read it."""
    return journal.find_source(key, (row.id for row in SOURCES[key].read(data, pass_over)))


def forget_lost_sources(run_dir: RunDir) -> None:
    """Forget what the journal knows of a source if it is not what the manifest says: changes cannot be told from it."""
    for key, reading in SOURCES.items():
        counts = run_dir.all_rows.get(reading.kind)
        if counts and run_dir.journal.count_source(key) != counts["rows_out"]:
            run_dir.journal.forget_source(key)


def read_source(data: UserData, run_dir: RunDir, key: str) -> None:
    """Read a source to its end, quarantine its bad rows, for as long as they are bad, and account for all.

    What a directory holds and no reader reads is an event; ``preflight`` says it to the user.
    """
    kind, source, journal = SOURCES[key].kind, flatten(data.config)[key], run_dir.journal
    if others := passed_over(str(data.source(source))):
        run_dir.events.write("files_passed_over", source=str(source), files=others)
    journal.forget_quarantine(kind)
    rows = SOURCES[key].read(data, lambda row: journal.quarantine(replace(row, kind=kind)))
    num_rows = journal.find_source(key, (row.id for row in rows)).num_rows
    journal.keep_source(key)
    num_bad = journal.num_quarantined(kind)
    account(run_dir, kind, rows_in=num_rows + num_bad, rows_out=num_rows, max_loss=data.config.max_loss)
