"""The books of a run: every row that goes into a pool or is read from a source is recorded or quarantined, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from rlaif.data.files.sources import passed_over
from rlaif.data.rows import rows_in
from rlaif.interfaces import Pool, Task
from rlaif.records import NO_BATCH, Provenance, Quarantined
from rlaif.stages.run import Run


class HasSource(Protocol):
    """A row that knows where it comes from: a Prompt, a record, a Draw."""

    @property
    def id(self) -> str: ...

    @property
    def source_file(self) -> str: ...

    @property
    def source_row(self) -> int: ...


_RowT = TypeVar("_RowT", bound=HasSource)


class CountedRows(Generic[_RowT]):
    """An iterable that counts what was taken from it."""

    def __init__(self, rows: Iterable[_RowT]) -> None:
        self._rows = rows
        self.num_taken = 0

    def __iter__(self) -> Iterator[_RowT]:
        for row in self._rows:
            self.num_taken += 1
            yield row


async def collect(
    run: Run,
    kind: str,
    pool: Pool,
    task: Task[_RowT, Provenance],
    rows: Iterable[_RowT],
    total: int | None = None,
) -> None:
    """Run ``task`` on every row without a record of ``kind``, journal each when it comes back, account for all."""
    journal, counted = run.run_dir.journal, CountedRows(rows)
    run.progress.start(kind, total)
    hits_before, asked_before = await pool.prefix_hits()
    async for failure in journal_results(run, kind, pool, task, counted):
        run.progress.advance(kind, failed=failure is not None)
    run.progress.finish(kind)
    hits, asked = await pool.prefix_hits()
    if asked > asked_before:
        hit_rate = (hits - hits_before) / (asked - asked_before)
        run.run_dir.metrics.write(kind, {f"{kind}/engine/prefix_hit_rate": hit_rate})
    run.run_dir.account(
        kind,
        rows_in=counted.num_taken,
        rows_out=journal.count(kind),
        quarantined=journal.num_quarantined(kind),
    )


async def journal_results(
    run: Run,
    kind: str,
    pool: Pool,
    task: Task[_RowT, Provenance],
    rows: Iterable[_RowT],
    batch: int = NO_BATCH,
) -> AsyncIterator[str | None]:
    """Run ``task`` on every row without a record of ``kind`` and journal what comes back together at once.

    Yields for each row why it failed, or None.
    """
    journal = run.run_dir.journal
    async for results in pool.run(task, journal.pending(kind, rows, batch)):
        journal.add_all(kind, (done.record for done in results if done.record is not None), batch)
        for done in results:
            if done.record is None:
                journal.quarantine(quarantine_entry(kind, done.row, done.failure, batch))
            yield done.failure


def quarantine_entry(kind: str, row: HasSource, cause: str | None, batch: int = NO_BATCH) -> Quarantined:
    """The entry for a row that a pool gave back without a record."""
    return Quarantined(
        id=row.id, file=row.source_file, row=row.source_row, kind=kind, batch=batch, cause=cause or "unknown"
    )


def account_source(run: Run, kind: str, source: str, records: Iterable[object]) -> int:
    """Read ``records`` of ``source`` to their end and account for its rows; returns the number of good ones.

    What a directory holds and no reader reads is an event; ``preflight`` says it to the user.
    """
    if others := passed_over(source):
        run.run_dir.events.write("files_passed_over", source=source, files=others)
    num_good = sum(1 for _ in records)
    bad = {row.id for row in run.run_dir.journal.quarantine_entries() if row.kind == "read"}
    are_bad = Counter(row.id in bad for row in rows_in(source))
    run.run_dir.account(kind, rows_in=are_bad.total(), rows_out=num_good, quarantined=are_bad[True])
    return num_good
