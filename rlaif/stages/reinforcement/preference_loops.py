"""The three loops that keep the preference model up to date with the policy; the package's docstring has the table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from rlaif.config.schema import PreferenceModel
from rlaif.interfaces import Pool, PreferenceLearner, Refitted, Task
from rlaif.jobs import RefreshRows
from rlaif.labels.quality import check_gate
from rlaif.records import Comparison, Preference, Provenance
from rlaif.seeds import seed_from
from rlaif.stages.bookkeeping import journal_results, label_quality, left_out_entry
from rlaif.stages.fit_preference_model import RESERVE
from rlaif.stages.reinforcement.context import LoopContext
from rlaif.stages.reinforcement.preference_versions import PreferenceVersion, num_refreshes, starts_at
from rlaif.stages.run import Run
from rlaif.storage.changes import RowToRecord
from rlaif.storage.stored_run import StoredRun
from rlaif.tasks.sampling import SamplePair
from rlaif.training.batches import TrainingRow
from rlaif.training.training_rows import LeftOut, PairBuilder
from rlaif.training.training_sets import PAIR_SCHEMA, ai_probs, read_training_set, write_pair_table

_RowT = TypeVar("_RowT", bound=RowToRecord)

#: Kinds of rows; a batch is a version.
REFRESH_COMPARISONS, REFRESH_PREFERENCES, REFRESH_PAIRS = "refresh_comparisons", "refresh_preferences", "refresh_pairs"


@dataclass(frozen=True, kw_only=True)
class PreferenceLoops:
    """Comparing, labelling, refitting: refreshes pass through them one after another, so three can be under way."""

    context: LoopContext
    labeller: Pool
    label_task: Task[Comparison, Preference]
    learner: PreferenceLearner
    builder: PairBuilder
    first: int  #: the version that is served at the start
    compared: asyncio.Queue[int] = field(default_factory=lambda: asyncio.Queue(1))
    labelled: asyncio.Queue[int] = field(default_factory=lambda: asyncio.Queue(1))

    @property
    def run(self) -> Run:
        return self.context.run

    @property
    def versions(self) -> range:
        config = self.run.config
        return range(self.first + 1, num_refreshes(config.reinforcement, config.preference_model.refresh) + 1)

    async def compare(self) -> None:
        """Sample pairs of answers of the policy as it is when a refresh is due."""
        config, waits = self.run.config, self.context.waits
        task = SamplePair(seed=config.seed, dialogue_format=self.run.format("policy"), sampling=config.sampling)
        for version in self.versions:
            due = starts_at(config.preference_model.refresh, version)
            await waits("compare", f"policy version {due}", self.context.admission.wait_for_version(due))
            prompts = self.context.schedule.comparisons(version, config.preference_model.refresh.comparisons)
            await self._collect(REFRESH_COMPARISONS, version, self.context.generator, task, prompts)
            await waits("compare", f"labels before version {version}", self.compared.put(version))

    async def label(self) -> None:
        """Judge the pairs of each refresh, in both orders."""
        waits = self.context.waits
        for version in self.versions:
            await waits("label", f"comparisons of refresh {version}", self.compared.get())
            pairs = self.run.run_dir.journal.records(Comparison, REFRESH_COMPARISONS, version)
            await self._collect(REFRESH_PREFERENCES, version, self.labeller, self.label_task, pairs)
            await waits("label", f"the fit before version {version}", self.labelled.put(version))

    async def refit(self) -> None:
        """Fit the preference model again on each refresh's labels and hand it to ``score``."""
        waits, checkpoints = self.context.waits, self.context.preference_checkpoints
        for version in self.versions:
            await waits("refit", f"labels of refresh {version}", self.labelled.get())
            self._check_labels(version)
            fresh = self._fresh(version)
            rows = await asyncio.to_thread(self._write, version, fresh)  # a large set would hold up the other loops
            refitted = await self.learner.learn(rows)
            self.run.run_dir.settle()
            offset = await checkpoints.write(refitted, self.learner)
            self._forget_training_sets()
            self._report(refitted, offset)
            refreshed = PreferenceVersion(version=version, weights=await self.learner.weights(), offset=offset)
            await waits("refit", f"version {version - 1} to be served", self.context.refreshed.put(refreshed))
            self.run.progress.advance("refresh")

    def _report(self, refitted: Refitted, offset: float) -> None:
        probes = {
            "refresh/probes/mean_before": refitted.probe_mean_before,
            "refresh/probes/mean_after": refitted.probe_mean_after,
            "refresh/probes/offset": offset,
        }
        self.run.run_dir.metrics.write("refresh", {**refitted.metrics, **probes}, index=refitted.version)

    async def _collect(
        self, kind: str, version: int, pool: Pool, task: Task[_RowT, Provenance], rows: Iterable[_RowT]
    ) -> None:
        pending = self.run.run_dir.journal.pending(kind, rows, version)
        async for _ in journal_results(self.run, kind, pool, task, pending, version):
            pass

    def _check_labels(self, version: int) -> None:
        """The gate of the first fit holds for every refresh. Raises GateError."""
        quality = label_quality(self.run.run_dir.journal, REFRESH_PREFERENCES, version).metrics()
        self.run.run_dir.metrics.write("refresh", {f"refresh/{key}": value for key, value in quality.items()}, version)
        check_gate(quality, self.run.config.labelling.gate)

    def _fresh(self, version: int) -> list[TrainingRow]:
        """The pairs that were labelled for this refresh; those that say nothing are quarantined."""
        journal, config = self.run.run_dir.journal, self.run.config
        labels = journal.records(Preference, REFRESH_PREFERENCES, version)
        probs = ai_probs(labels, config.preference_model.shuffle_labels, config.seed)
        rows = self.builder.from_labels(journal.records(Preference, REFRESH_PREFERENCES, version), probs)
        fresh = []
        for row in rows:
            if isinstance(row, LeftOut):
                self.run.quarantine(left_out_entry(row, REFRESH_PAIRS, version))
            else:
                fresh.append(row)
        return fresh

    def _write(self, version: int, fresh: list[TrainingRow]) -> RefreshRows:
        """Write the fresh pairs, and the fit set: them and those of the fit before, with as many human pairs to each AI
        label as in the first fit, and as many of all as there is room for."""
        fit_path, fresh_path = (self._training_set(version, part) for part in ("fit", "fresh"))
        write_pair_table(fresh_path, pa.Table.from_pylist(fresh, PAIR_SCHEMA))
        older = read_training_set(self._training_set(version - 1, "fit"))
        reserve = read_training_set(self.run.run_dir.training_set(RESERVE))
        chance = Random(seed_from(self.run.config.seed, "refresh", version))
        kept = refreshed_mix(older, reserve, len(fresh), self.run.config.preference_model, chance)
        write_pair_table(fit_path, pa.concat_tables([*kept, read_training_set(fresh_path)]))
        heldout = self._training_set(0, "heldout")
        has_heldout = read_training_set(heldout).num_rows > 0
        return RefreshRows(fit=str(fit_path), fresh=str(fresh_path), heldout=str(heldout) if has_heldout else None)

    def _training_set(self, version: int, part: str) -> Path:
        return fitted_on(self.run.run_dir, version, part)

    def _forget_training_sets(self) -> None:
        """Drop those that no refresh will begin with, not even the first one of a resumed run."""
        for version in range(1, self.context.preference_checkpoints.oldest()):
            for part in ("fit", "fresh"):
                self._training_set(version, part).unlink(missing_ok=True)


def fitted_on(run_dir: StoredRun, version: int, part: str = "fit") -> Path:
    """What the model of ``version`` was fitted on; version 0 is the first fit's."""
    return run_dir.training_set(f"refresh_{version:08d}_{part}" if version else f"preference_{part}")


def write_probes(run: Run) -> Path:
    """The frozen probe set, of all axes: pairs held out from the first fit, or its own if none were held out."""
    heldout, fit = (read_training_set(run.run_dir.training_set(f"preference_{part}")) for part in ("heldout", "fit"))
    rows = (heldout if heldout.num_rows else fit).to_pylist()
    num = min(len(rows), run.config.preference_model.refresh.probes // 2)  # a pair is two dialogues
    path = run.run_dir.training_set("preference_probes")
    write_pair_table(
        path, pa.Table.from_pylist(Random(seed_from(run.config.seed, "probes")).sample(rows, num), PAIR_SCHEMA)
    )
    return path


def refreshed_mix(
    older: pa.Table, reserve: pa.Table, num_fresh: int, settings: PreferenceModel, chance: Random
) -> tuple[pa.Table, pa.Table]:
    """The AI labels and the human pairs that are fitted on again, beside ``num_fresh`` fresh labels.

    ``older``: those of the fit before. Human pairs are topped up from ``reserve``, so that there are
    ``helpful_per_harmless`` of them to each label as long as there are any. With ``refresh.max_pairs``, each kind is
    drawn by lot to its share.
    """
    is_helpful = pc.equal(older["axis"], "helpful")
    harmless, helpful = older.filter(pc.invert(is_helpful)), older.filter(is_helpful)
    unused = reserve.filter(pc.invert(pc.is_in(reserve["id"], helpful["id"].combine_chunks())))
    helpful = pa.concat_tables([helpful, unused])
    if (most := settings.refresh.max_pairs) is not None:
        share = 1 / (1 + settings.helpful_per_harmless) if helpful.num_rows else 1.0
        harmless = _drawn(harmless, max(0, round(most * share) - num_fresh), chance)
    wanted = round(settings.helpful_per_harmless * (harmless.num_rows + num_fresh))
    if most is not None:
        wanted = min(wanted, max(0, most - harmless.num_rows - num_fresh))
        return harmless, _drawn(helpful, wanted, chance)
    return harmless, helpful.slice(0, max(wanted, helpful.num_rows - unused.num_rows))


def _drawn(rows: pa.Table, num: int, chance: Random) -> pa.Table:
    chosen = sorted(chance.sample(range(rows.num_rows), min(num, rows.num_rows)))
    return rows.take(pa.array(chosen, pa.int64()))
