"""The books of a run: every row that goes into a pool or is read from a source is recorded or quarantined, once."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from rlaif.engines.models import model_hash
from rlaif.errors import LossError
from rlaif.ids import fingerprint
from rlaif.interfaces import Failure, Pool, RecordedTask, Task
from rlaif.labels.quality import LabelQuality, measure
from rlaif.records import NO_BATCH, Preference, Provenance, Quarantined
from rlaif.stages.run import Run
from rlaif.storage.changes import RowToRecord, Survey
from rlaif.storage.journal import Journal
from rlaif.storage.run_dir import RunDir
from rlaif.training.training_rows import LeftOut
from rlaif.training.training_sets import RowCounts

_logger = logging.getLogger(__name__)
_RowT = TypeVar("_RowT", bound=RowToRecord)


@dataclass(frozen=True, kw_only=True)
class Recording(Generic[_RowT]):
    """The records of one kind: the rows that they are made of, as often as they are read, the task, and the model."""

    kind: str
    task: RecordedTask[_RowT, Provenance]
    rows: Callable[[], Iterable[_RowT]]
    role: str
    model: str

    def survey(self, run: Run) -> Survey:
        """Compare what is stored with the rows, the task and the model as they are now; changes nothing."""
        model = model_hash(self.model)
        return run.run_dir.journal.survey(self.kind, self.rows(), lambda row: self.fingerprint(row, model))

    def fingerprint(self, row: _RowT, model: str) -> str:
        """Of all that the record of ``row`` is made of."""
        return fingerprint(row, self.task.inputs(row), model)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What it took to make ``num_records``: wall-clock time, and the time for which engines served, all together."""

    num_records: int = 0
    seconds: float = 0.0
    engine_seconds: float = 0.0


async def record(run: Run, recording: Recording[_RowT]) -> Effort:
    """Make the records that are missing, outdated or to be tried again; account for all rows.

    What is outdated is counted and named before anything is made again. Without such rows no engine is opened. Raises
    LossError as ``check_loss`` does.
    """
    kind, journal = recording.kind, run.run_dir.journal
    survey = recording.survey(run)
    _announce(run, kind, survey)
    journal.drop_outdated(kind)
    effort = Effort()
    if survey.num_pending:
        async with run.pool(recording.role, recording.model) as pool:
            effort = await _make(run, recording, pool, survey)
    account(run.run_dir, kind, rows_in=survey.num_rows, rows_out=journal.count(kind), max_loss=run.config.max_loss)
    return effort


def account(
    run_dir: RunDir, kind: str, *, rows_in: int, rows_out: int, max_loss: float, cut: int | None = None
) -> None:
    """Enter what became of the rows of ``kind``; those that did not come out must be quarantined.

    ``cut``: rows whose dialogue was shortened to fit; None: what their records say.
    Raises LossError when none came out, or fewer than ``max_loss``, a share, allows.
    """
    cut = run_dir.journal.num_truncated(kind) if cut is None else cut
    quarantined = run_dir.journal.num_quarantined(kind)
    run_dir.account(kind, rows_in=rows_in, rows_out=rows_out, quarantined=quarantined, cut=cut)
    check_loss(run_dir, kind, rows_in=rows_in, rows_out=rows_out, max_loss=max_loss)


class Book:
    """Takes the rows of ``kind`` that are left out of a training set: each is quarantined with its cause."""

    def __init__(self, run: Run, kind: str) -> None:
        self._run, self._kind = run, kind
        run.run_dir.journal.forget_quarantine(kind)  # what an interrupted attempt left

    def __call__(self, row: LeftOut) -> None:
        self._run.run_dir.journal.quarantine(left_out_entry(row, self._kind))

    def close(self, counts: RowCounts) -> None:
        """Account for all rows. Raises LossError as ``check_loss`` does."""
        run_dir, kind = self._run.run_dir, self._kind
        num_in, num_out, max_loss = counts.rows_in, counts.rows_out, self._run.config.max_loss
        account(run_dir, kind, rows_in=num_in, rows_out=num_out, max_loss=max_loss, cut=counts.cut)


def check_loss(run_dir: RunDir, kind: str, *, rows_in: int, rows_out: int, max_loss: float) -> None:
    """Raises LossError when no row of ``kind`` came out, or fewer than ``max_loss`` allows."""
    if rows_out and rows_in - rows_out <= max_loss * rows_in:
        return
    run_dir.write_quarantine()
    cause, number = run_dir.journal.main_cause(kind)
    allowed = f", and max_loss={max_loss:g} allows to lose {max_loss:.0%}" if rows_out else ""
    raise LossError(
        f"{kind}: {rows_out} of {rows_in} rows came out{allowed}; the most frequent cause ({number} rows): {cause}; "
        f"{run_dir.path / 'quarantine.jsonl'} lists all; mend the cause and run the same command again"
    )


def _announce(run: Run, kind: str, survey: Survey) -> None:
    """Say what of the stored records is not kept."""
    parts = (
        (survey.outdated, "outdated, because what they were made of has changed, and made again"),
        (survey.gone, "left out, because their rows are gone"),
        (survey.restored, "taken up again, because what they were made of is back"),
        (survey.retried, "tried again, because they failed for a cause outside themselves"),
    )
    for number, what in parts:
        if number:
            _logger.warning("%s: %d %s", kind, number, what)
    if any(number for number, _ in parts):
        facts = {name: getattr(survey, name) for name in ("outdated", "gone", "restored", "retried")}
        run.run_dir.events.write("rows_outdated", rows=kind, **facts)


async def _make(run: Run, recording: Recording[_RowT], pool: Pool, survey: Survey) -> Effort:
    kind, model = recording.kind, model_hash(recording.model)
    run.progress.start(kind, survey.num_pending)
    hits_before, asked_before = await pool.prefix_hits()
    num_before, engine_s_before, started = run.run_dir.journal.count(kind), pool.engine_seconds(), time.monotonic()
    rows = run.run_dir.journal.pending(kind, recording.rows())
    made = journal_results(run, kind, pool, recording.task, rows, fingerprint=lambda r: recording.fingerprint(r, model))
    async for failure in made:
        run.progress.advance(kind, failed=failure is not None)
    run.progress.finish(kind)
    hits, asked = await pool.prefix_hits()
    if asked > asked_before:
        hit_rate = (hits - hits_before) / (asked - asked_before)
        run.run_dir.metrics.write(kind, {f"{kind}/engine/prefix_hit_rate": hit_rate})
    return Effort(
        num_records=run.run_dir.journal.count(kind) - num_before,
        seconds=time.monotonic() - started,
        engine_seconds=pool.engine_seconds() - engine_s_before,
    )


async def journal_results(
    run: Run,
    kind: str,
    pool: Pool,
    task: Task[_RowT, Provenance],
    rows: Iterable[_RowT],
    batch: int = NO_BATCH,
    fingerprint: Callable[[_RowT], str] = lambda _: "",
) -> AsyncIterator[Failure | None]:
    """Run ``task`` on ``rows`` and journal what comes back together at once.

    Yields for each row why it failed, or None.
    """
    journal = run.run_dir.journal
    async for results in pool.run(task, rows):
        records = {done.row.id: done.record for done in results if done.record is not None}
        made_of = {done.row.id: fingerprint(done.row) for done in results}
        journal.add_all(kind, records.values(), batch, made_of)
        for done in results:
            if done.failure is not None:
                journal.quarantine(quarantine_entry(kind, done.row, done.failure, batch), made_of[done.row.id])
            yield done.failure


def label_quality(journal: Journal, kind: str, batch: int | None = None) -> LabelQuality:
    """The quality of the labels of ``kind`` (of one batch, or of all); pairs that the labeller failed on count."""
    labels = journal.records(Preference, kind, batch)
    return measure(labels, num_failed=journal.num_quarantined(kind, batch))


def left_out_entry(row: LeftOut, kind: str, batch: int = NO_BATCH) -> Quarantined:
    """The entry for a row that is not trained on."""
    return Quarantined(id=row.id, file=row.source_file, row=row.source_row, kind=kind, batch=batch, cause=row.cause)


def quarantine_entry(kind: str, row: RowToRecord, failure: Failure, batch: int = NO_BATCH) -> Quarantined:
    """The entry for a row that a pool gave back without a record."""
    return Quarantined(
        id=row.id,
        file=row.source_file,
        row=row.source_row,
        kind=kind,
        batch=batch,
        cause=failure.cause,
        fault=failure.fault,
    )
