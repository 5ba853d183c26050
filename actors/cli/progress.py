"""Progress in the terminal: a bar per pool with its rate and ETA, or a line per stage where there is no terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class RateColumn(ProgressColumn):
    """Rows per second since the bar appeared."""

    def render(self, task: Task) -> Text:
        seconds = task.elapsed or 0.0
        return Text(f"{task.completed / seconds:.1f}/s" if seconds > 0 and task.completed else "")


class Bars:
    """Implements ``rlaif.stages.run.Progress``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started: dict[str, float] = {}
        self._failed: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, name: str, total: int | None) -> None:
        self._started[name], self._failed[name] = time.monotonic(), 0
        self._tasks[name] = self._progress.add_task(name, total=total)

    def advance(self, name: str, failed: bool = False) -> None:
        self._failed[name] += failed
        self._progress.advance(self._tasks[name])

    def finish(self, name: str) -> None:
        task = self._progress.tasks[self._progress.task_ids.index(self._tasks[name])]
        seconds = time.monotonic() - self._started[name]
        rows = f"{task.completed:,.0f} rows, {task.completed / max(seconds, 1e-9):,.0f}/s" if task.completed else ""
        failed = f", {self._failed[name]} quarantined" if self._failed[name] else ""
        self._progress.remove_task(task.id)
        self._console.print(f"  {name:<24} {seconds:7.1f} s  {rows}{failed}", highlight=False)
