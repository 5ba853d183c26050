"""What a run directory holds so far, for the report. Any file may be missing: a report can be made midway."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaif.errors import RunDirError

NUM_HISTOGRAM_BINS = 20
RELIABILITY = "preference/reliability/"  #: followed by the bin's lower end and the name of a number: 0.9_mean_prob

#: The order of the story; the manifest's own is alphabetical. What is not named here comes last.
STAGES_ORDER = ("revise", "supervise", "label", "fit_preference_model", "reinforce", "evaluate")
ROWS_ORDER = ("revisions", "helpful_samples", "supervise", "comparisons", "preferences", *STAGES_ORDER[3:])

JsonObject = dict[str, Any]  #: parsed JSON, or a row of parquet
Series = list[tuple[float, float]]  #: (step, value), in the order of steps


@dataclass(frozen=True)
class Findings:
    """Raises RunDirError if ``path`` is not a run directory."""

    path: Path

    def __post_init__(self) -> None:
        if not (self.path / "config.yaml").is_file():
            raise RunDirError(f"{self.path}: not a run directory (it has no config.yaml)")

    # -------------------------------------------------------------------------------------------- counts
    @cached_property
    def manifest(self) -> JsonObject:
        return self._json("manifest.json")

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Kind of rows -> ``rows_in``, ``rows_out``, ``quarantined``."""
        return _in_order(self.manifest.get("stages", {}), ROWS_ORDER)

    @property
    def finished(self) -> Mapping[str, Mapping[str, Any]]:
        """Stage of the pipeline -> how long it took."""
        return _in_order(self.manifest.get("finished", {}), STAGES_ORDER)

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
        """Key -> its series. A step that was run again after a crash counts once, as it was last."""
        found: dict[str, dict[float, float]] = {}
        for line in self.lines("metrics.jsonl"):
            for key, value in line["metrics"].items():
                if value is not None:
                    series = found.setdefault(key, {})
                    step = line.get("step")
                    series[len(series) + 1 if step is None else step] = value
        return {key: sorted(series.items()) for key, series in found.items()}

    def last(self, prefix: str = "") -> dict[str, float]:
        """The last value of every metric whose key starts with ``prefix``."""
        return {key: series[-1][1] for key, series in sorted(self.metrics.items()) if key.startswith(prefix)}

    def preference_bins(self) -> list[dict[str, float]]:
        """Reliability bins of the preference model on the held-out pairs, from the lowest."""
        bins: dict[str, dict[str, float]] = {}
        for key, value in self.last(RELIABILITY).items():
            low, figure = key.removeprefix(RELIABILITY).split("_", 1)
            bins.setdefault(low, {})[figure] = value
        return list(bins.values())

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
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def lines(self, name: str) -> Iterator[JsonObject]:
        """Rows of a .jsonl file. Half-written lines, left by a crash or by a run in progress, are skipped."""
        path = self.path / name
        if not path.is_file():
            return
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                with suppress(json.JSONDecodeError):
                    yield json.loads(line)

    def _batches(self, kind: str, columns: list[str] | None) -> Iterator[list[JsonObject]]:
        import pyarrow.parquet as pq

        for path in sorted((self.path / kind).glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1024, columns=columns):
                    yield batch.to_pylist()


def _in_order(named: Mapping[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    return dict(sorted(named.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
