"""Step 4. Consumes: preferences, human helpfulness pairs, voted answers. Waits for: the gate on label quality, then
the preference trainer's ranks. Produces: models/preference_model."""

from __future__ import annotations

from rlaif.data.pairs import read_pairs
from rlaif.data.training_sets import PairBuilder, ai_probs, write_pair_rows
from rlaif.data.votes import read_votes
from rlaif.label_quality import check_gate, measure
from rlaif.records import Preference
from rlaif.stages.run import Run
from rlaif.training.jobs import PreferenceJob


async def fit_preference_model(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    check_gate(measure(run_dir.journal.records(Preference, "preferences")).metrics(), config.labelling.gate)
    pretraining = _write_pretraining(run)
    rows_in, rows_out = _write_fit(run)
    job = PreferenceJob(
        base_model=run.path(config.preference_model.base_model),
        pretraining=pretraining,
        fit=str(run_dir.training_set("preference_fit")),
        heldout=str(run_dir.training_set("preference_heldout")),
        output=str(run_dir.model("preference_model")),
        settings=config.preference_model,
        trainer=config.preference_trainer,
        seed=config.seed,
    )
    run.progress.start("fit_preference_model", None)
    metrics = await run.trainers.fit_preference_model(job)
    run.progress.finish("fit_preference_model")
    run_dir.metrics.write("fit_preference_model", metrics)
    run_dir.account("fit_preference_model", rows_in=rows_in, rows_out=rows_out, quarantined=rows_in - rows_out)


def _builder(run: Run) -> PairBuilder:
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
    write_pair_rows(path, _builder(run).from_votes(read_votes(run.path(source), run.quarantine)))
    return str(path)


def _write_fit(run: Run) -> tuple[int, int]:
    """Write the fit and held-out sets; returns (labels in, labels used): only OK and TIE labels become numbers."""
    config, journal, builder = run.config, run.run_dir.journal, _builder(run)
    probs = ai_probs(journal.records(Preference, "preferences"), config.preference_model.shuffle_labels, config.seed)
    source = config.data.helpful_pairs
    for name, heldout in (("preference_fit", False), ("preference_heldout", True)):
        rows = builder.from_labels(journal.records(Preference, "preferences"), probs)
        if source is not None:
            human = read_pairs(run.path(source), run.quarantine)
            rows = builder.mixed(rows, human, num_labels=len(probs))
        write_pair_rows(run.run_dir.training_set(name), (row for row in rows if builder.is_heldout(row) == heldout))
    return journal.count("preferences"), len(probs)
