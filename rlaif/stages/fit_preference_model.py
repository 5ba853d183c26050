"""Step 4. Consumes: preferences, human helpfulness pairs, voted answers. Waits for: the gate on label quality, then
the preference trainer's ranks. Produces: models/preference_model, and models/preference_model_unfitted, which
refreshes fit again.

With ``test_split`` the pairs are halved and a second model, models/preference_model_test, is fitted on the half that
the first never saw. Reinforcement uses the first; where a policy gains by the first and not by the second, it has
learned the first one's errors. Source: arXiv 2204.05862, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rlaif.data.pairs import read_pairs
from rlaif.data.votes import read_votes
from rlaif.jobs import PreferenceJob
from rlaif.labels.quality import check_gate, measure
from rlaif.records import Preference
from rlaif.stages.run import Run
from rlaif.training.training_sets import PairBuilder, RowCounts, ai_probs, write_pair_rows, write_pair_splits


async def fit_preference_model(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    check_gate(measure(run_dir.journal.records(Preference, "preferences")).metrics(), config.labelling.gate)
    pretraining = _write_pretraining(run)
    labels, num_heldout = _write_fit(run)
    job = PreferenceJob(
        base_model=run.path(config.preference_model.base_model),
        pretraining=pretraining,
        fit=str(run_dir.training_set("preference_fit")),
        heldout=str(run_dir.training_set("preference_heldout")) if num_heldout else None,
        output=str(run_dir.model("preference_model")),
        unfitted=str(run_dir.model("preference_model_unfitted")),
        settings=config.preference_model,
        trainer=config.preference_trainer,
        seed=config.seed,
    )
    run.progress.start("fit_preference_model", None)
    metrics = dict(await run.trainers.fit_preference_model(job))
    if config.preference_model.test_split:
        metrics |= await run.trainers.fit_preference_model(_test_job(run, job))
        metrics |= _gap_to_test_model(metrics)
    run.progress.finish("fit_preference_model")
    run_dir.metrics.write("fit_preference_model", metrics)
    run_dir.account(
        "fit_preference_model", rows_in=labels.rows_in, rows_out=labels.rows_out, quarantined=labels.left_out
    )


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
        dialogue_format=run.config.dialogue_format,
        settings=run.config.preference_model,
        seed=run.config.seed,
    )


def _write_pretraining(run: Run) -> str | None:
    source = run.config.data.votes
    if source is None:
        return None
    path = run.run_dir.training_set("preference_pretraining")
    write_pair_rows(path, pair_builder(run).from_votes(read_votes(run.path(source), run.quarantine)))
    return str(path)


def _write_fit(run: Run) -> tuple[RowCounts, int]:
    """Write the splits of the pairs; returns what became of the labels (only OK and TIE ones become numbers) and the
    number of held-out pairs, which in a small run may be 0."""
    config, journal, builder = run.config, run.run_dir.journal, pair_builder(run)
    probs = ai_probs(journal.records(Preference, "preferences"), config.preference_model.shuffle_labels, config.seed)
    rows = builder.from_labels(journal.records(Preference, "preferences"), probs)
    if config.data.helpful_pairs is not None:
        human = read_pairs(run.path(config.data.helpful_pairs), run.quarantine)
        rows = builder.mix(rows, human, num_labels=len(probs))
    paths = {split: run.run_dir.training_set(f"preference_{split}") for split in builder.splits}
    counts = write_pair_splits(paths, rows, builder.split_of)
    labels = RowCounts(rows_in=journal.count("preferences"), rows_out=len(probs))
    return labels, counts["heldout"].rows_out
