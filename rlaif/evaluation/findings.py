"""What a run directory holds so far, for the report. Any file may be missing: a report can be made midway."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rlaif.errors import RlaifError, RunDirError, quote_error
from rlaif.statistics.calibration import bins_from_metrics
from rlaif.storage.damage import check_places, damaged, reading
from rlaif.storage.manifest import MANIFEST_FILE, new_manifest, read_manifest
from rlaif.storage.metrics import read_log
from rlaif.storage.tables import read_batches, tables_in

NUM_HISTOGRAM_BINS = 20
#: What can be left out of the report, if it cannot be shown.
_PASSED_OVER = (
    *("evaluation.json", "evaluation_answers.jsonl", "label_quality.json", "audit.json"),
    *("metrics.jsonl", "quarantine.jsonl"),
)
_TABLES_PASSED_OVER = ("revisions", "preferences")
_T = TypeVar("_T")
RELIABILITY = "preference/reliability"  #: the group of the preference model's held-out bins

JsonObject = dict[str, Any]  #: parsed JSON, or a row of parquet
Series = list[tuple[float, float]]  #: (index, value), in the order of indices


@dataclass(frozen=True)
class Findings:
    """Raises RunDirError if ``path`` is not a run directory, DamagedError for what cannot be read. ``without``: a file
    or directory that is passed over, as if it were missing."""

    path: Path
    without: str = ""

    def __post_init__(self) -> None:
        check_places(self.path)
        if not (self.path / "config.yaml").is_file():
            raise RunDirError(f"{self.path}: not a run directory (it has no config.yaml)")

    # -------------------------------------------------------------------------------------------- counts
    @cached_property
    def manifest(self) -> JsonObject:
        exists = (self.path / MANIFEST_FILE).is_file()
        return read_manifest(self.path) if exists else new_manifest()

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Kind of rows -> ``rows_in``, ``rows_out``, ``quarantined``, in the order in which they were made."""
        rows: Mapping[str, Mapping[str, Any]] = self.manifest["rows"]
        return rows

    @property
    def finished(self) -> Mapping[str, Mapping[str, Any]]:
        """Stage of the story -> how long it took, in the order of the story."""
        stages: Mapping[str, Mapping[str, Any]] = self.manifest["stages"]
        return stages

    @cached_property
    def evaluation(self) -> JsonObject:
        return self._json("evaluation.json")

    @cached_property
    def audit(self) -> JsonObject:
        return self._json("audit.json")

    @cached_property
    def label_quality(self) -> JsonObject:
        return self._json("label_quality.json")

    @property
    def configuration(self) -> str:
        with reading(self.path / "config.yaml"):
            return (self.path / "config.yaml").read_text(encoding="utf-8")

    def quarantine_causes(self) -> list[tuple[str, str, int, str]]:
        """(stage, cause, number of rows, id of the first), most frequent first."""
        counts: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, str], str] = {}
        for row in self.lines("quarantine.jsonl"):
            key = row["stage"], row["cause"]
            counts[key] += 1
            first.setdefault(key, row["id"])
        return [(stage, cause, n, first[stage, cause]) for (stage, cause), n in counts.most_common()]

    # ------------------------------------------------------------------------------------------- metrics
    @cached_property
    def metrics(self) -> dict[str, Series]:
        """Key -> its series. What was run again after a crash counts once, as it was last; lines that have no index
        are counted. Those of the audit are in its own file."""
        found: dict[str, dict[float, float]] = {key: {1: value} for key, value in self.audit.get("metrics", {}).items()}
        for line in self.lines("metrics.jsonl"):
            for key, value in line["metrics"].items():
                if value is not None:
                    series = found.setdefault(key, {})
                    index = line.get("index", line.get("step"))  # as logs of earlier runs call it
                    series[len(series) + 1 if index is None else index] = value
        return {key: sorted(series.items()) for key, series in found.items()}

    def last(self, prefix: str = "") -> dict[str, float]:
        """The last value of every metric whose key starts with ``prefix``."""
        return {key: series[-1][1] for key, series in sorted(self.metrics.items()) if key.startswith(prefix)}

    def preference_bins(self) -> list[dict[str, float]]:
        """Reliability bins of the preference model on the held-out pairs, from the lowest."""
        return bins_from_metrics(self.last(RELIABILITY), RELIABILITY)

    # ------------------------------------------------------------------------------------------- records
    def records(self, kind: str, num: int) -> list[JsonObject]:
        """The first ``num`` good rows of ``revisions``, ``preferences``... in order."""
        rows = (row for batch in self._batches(kind, None) for row in batch if row["status"] in ("ok", "tie"))
        return [row for _, row in zip(range(num), rows, strict=False)]

    def label_histogram(self) -> list[int]:
        """How many labels fall into each of equally wide bins of P(answer 1 better)."""
        counts = [0] * NUM_HISTOGRAM_BINS
        for batch in self._batches("preferences", ["prob"]):
            for row in batch:
                if row["prob"] is not None:
                    counts[min(int(row["prob"] * NUM_HISTOGRAM_BINS), NUM_HISTOGRAM_BINS - 1)] += 1
        return counts

    # --------------------------------------------------------------------------------------------- files
    def _json(self, name: str) -> JsonObject:
        path = self.path / name
        if name == self.without or not path.is_file():
            return {}
        with reading(path):
            content: JsonObject = json.loads(path.read_text(encoding="utf-8"))
            return content

    def lines(self, name: str) -> Iterator[JsonObject]:
        """Rows of a .jsonl file; those that cannot be read are skipped."""
        return read_log(self.path / name) if name != self.without else iter(())

    def _batches(self, kind: str, columns: list[str] | None) -> Iterator[list[JsonObject]]:
        for path in tables_in(self.path, kind) if kind != self.without else ():
            for batch in read_batches(path, 1024, columns):
                yield batch.to_pylist()


def show(run_dir: Path, make: Callable[[Findings], _T]) -> _T:
    """What ``make`` makes of a run directory. Raises DamagedError with the file for which that fails."""
    try:
        return make(Findings(run_dir))
    except RlaifError:
        raise
    except Exception as error:  # a file is what it says it is, and holds something else
        for name in (*_PASSED_OVER, *_TABLES_PASSED_OVER):
            if _can_do_without(run_dir, name, make):
                path = next(iter(tables_in(run_dir, name)), run_dir / name)
                raise damaged(path, f"is damaged, or of another version: {quote_error(error)}") from error
        raise


def _can_do_without(run_dir: Path, name: str, make: Callable[[Findings], object]) -> bool:
    with suppress(Exception):
        make(Findings(run_dir, without=name))
        return True
    return False
