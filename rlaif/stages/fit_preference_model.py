"""Step 4. Consumes: preferences, human helpfulness pairs, voted answers. Waits for: the gate on label quality, then
the preference trainer's ranks. Produces: models/preference_model, and models/preference_model_unfitted, which
refreshes fit again.

With ``test_split`` the pairs are halved and a second model, models/preference_model_test, is fitted on the half that
the first never saw. Reinforcement uses the first; where a policy gains by the first and not by the second, it has
learned the first one's errors. Source: arXiv 2204.05862, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from rlaif.config.schema import Config
from rlaif.jobs import PreferenceJob
from rlaif.labels.quality import check_gate
from rlaif.records import Preference
from rlaif.stages.bookkeeping import Book, label_quality
from rlaif.stages.reinforcement.preference_versions import num_refreshes
from rlaif.stages.run import Run
from rlaif.training.splits import SplitName, Splits
from rlaif.training.training_rows import LeftOut, PairBuilder
from rlaif.training.training_sets import MadeRow, ai_probs, draw_by_lot, write_pair_rows, write_pair_splits

RESERVE = "preference_reserve"  #: training set of human pairs that refreshes may add


async def fit_preference_model(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    check_gate(label_quality(run_dir.journal, "preferences").metrics(), config.labelling.gate)
    await run.begin("fit_preference_model")
    pretraining = _write_pretraining(run)
    num_rows = _write_fit(run)
    job = PreferenceJob(
        base_model=run.path(config.preference_model.base_model),
        pretraining=pretraining,
        fit=str(run_dir.training_set("preference_fit")),
        heldout=str(run_dir.training_set("preference_heldout")) if num_rows["heldout"] else None,
        output=str(run_dir.model("preference_model")),
        unfitted=str(run_dir.model("preference_model_unfitted")),
        settings=config.preference_model,
        trainer=run.fit_trainer("preference_trainer"),
        seed=config.seed,
        tokenizer=run.saved_policy_tokenizer(),
    )
    run.progress.start("fit_preference_model", None)
    metrics = dict(await run.trainers.fit_preference_model(job))
    if config.preference_model.test_split:
        metrics |= await run.trainers.fit_preference_model(_test_job(run, job))
        metrics |= _gap_to_test_model(metrics)
    run.progress.finish("fit_preference_model")
    run_dir.metrics.write("fit_preference_model", metrics)


def _test_job(run: Run, job: PreferenceJob) -> PreferenceJob:
    """The same fit on the other half of the pairs."""
    return replace(
        job,
        name="preference_test",
        fit=str(run.run_dir.training_set("preference_test_fit")),
        output=str(run.run_dir.model("preference_model_test")),
        unfitted=str(run.run_dir.model("preference_model_test_unfitted")),
    )


def _gap_to_test_model(metrics: Mapping[str, float]) -> dict[str, float]:
    """How much more accurate the first model is than the second, on pairs that neither saw."""
    first, second = (metrics.get(f"{name}/heldout/accuracy") for name in ("preference", "preference_test"))
    if first is None or second is None:
        return {}
    return {"preference/gap/test_model_accuracy": first - second}


def pair_builder(run: Run) -> PairBuilder:
    return PairBuilder(
        tokenizer=run.policy_tokenizer,
        dialogue_format=run.format("policy"),
        settings=run.config.preference_model,
    )


def splits_of(config: Config) -> Splits:
    settings = config.preference_model
    return Splits(seed=config.seed, heldout_fraction=settings.heldout_fraction, test=settings.test_split)


def _write_pretraining(run: Run) -> str | None:
    if run.config.data.votes is None:
        return None
    path, book = run.run_dir.training_set("preference_pretraining"), Book(run, "pretraining_pairs")
    book.close(write_pair_rows(path, pair_builder(run).from_votes(run.votes()), book))
    return str(path)


def _write_fit(run: Run) -> dict[SplitName, int]:
    """Write the splits of the pairs, and those in reserve; returns the number of rows in each split."""
    splits, chosen, book = splits_of(run.config), _HumanPairs(run), Book(run, "preference_pairs")
    paths = {split: run.run_dir.training_set(f"preference_{split}") for split in splits.names}
    counts, num_rows = write_pair_splits(paths, _pairs(run, chosen), splits.of, book)
    book.close(counts)
    _write_reserve(run, chosen, splits)
    return num_rows


def _write_reserve(run: Run, human: _HumanPairs, splits: Splits) -> None:
    """Write the human pairs that refreshes may add; none of them is about a held-out prompt."""
    book = Book(run, "reserve_pairs")
    rows = (row for row in human.reserve() if isinstance(row, LeftOut) or splits.of(row["prompt"]) == "fit")
    counts = write_pair_rows(run.run_dir.training_set(RESERVE), rows, book)
    if counts.rows_in:  # without refreshes there is no reserve
        book.close(counts)


def _pairs(run: Run, human: _HumanPairs) -> Iterator[MadeRow]:
    """AI labels, and then human pairs: as many as ``helpful_per_harmless`` asks for (all, when there are fewer)."""
    config, journal = run.config, run.run_dir.journal
    probs = ai_probs(journal.records(Preference, "preferences"), config.preference_model.shuffle_labels, config.seed)
    num_labels = 0
    for row in pair_builder(run).from_labels(journal.records(Preference, "preferences"), probs):
        num_labels += not isinstance(row, LeftOut)
        yield row
    yield from human.fitted(num_labels)


class _HumanPairs:
    """The human pairs that are used, drawn by lot: those for the fit, and those in reserve for refreshes."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lots: dict[str, int] = {}
        self._num_fitted = 0

    def fitted(self, num_labels: int) -> Iterator[MadeRow]:
        config = self._run.config
        if config.data.helpful_pairs is None:
            return
        settings = config.preference_model
        num_fresh = num_refreshes(config.reinforcement, settings.refresh) * settings.refresh.comparisons
        self._num_fitted = round(settings.helpful_per_harmless * num_labels)
        num_reserve = round(settings.helpful_per_harmless * num_fresh)
        self._lots = draw_by_lot(self._run.pairs(), self._num_fitted + num_reserve, config.seed)
        yield from self._drawn(range(self._num_fitted))

    def reserve(self) -> Iterator[MadeRow]:
        yield from self._drawn(range(self._num_fitted, len(self._lots)))

    def _drawn(self, numbers: range) -> Iterator[MadeRow]:
        if not numbers:
            return
        drawn = (pair for pair in self._run.pairs() if self._lots.get(pair.id, -1) in numbers)
        yield from pair_builder(self._run).from_pairs(drawn)
