"""Which trainer a job's configuration asks for: DeepSpeed's, or the scripted one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rlaif.training.batches import Row
from rlaif.training.jobs import PPOJob, PreferenceJob, Rank, RefreshJob, SFTJob

Report = Callable[[Mapping[str, float]], None]


def supervise(job: SFTJob, rank: Rank, batches: Iterable[list[Row]], report: Report) -> dict[str, float]:
    if job.trainer.engine == "scripted":
        from rlaif.training.scripted import scripted_sft

        return scripted_sft(job, rank, batches)
    from rlaif.training.sft import run_sft

    return run_sft(job, rank, batches, report)


def fit_preference_model(
    job: PreferenceJob,
    rank: Rank,
    pretraining_batches: Iterable[list[Row]] | None,
    fit_batches: Iterable[list[Row]],
    heldout_rows: Sequence[Row] | None,
    report: Report,
) -> dict[str, float]:
    if job.trainer.engine == "scripted":
        from rlaif.training.scripted import scripted_fit

        return scripted_fit(job, rank, pretraining_batches, fit_batches)
    from rlaif.training.preference import run_preference

    return run_preference(job, rank, pretraining_batches, fit_batches, heldout_rows, report)


def open_learner(job: PPOJob | RefreshJob, rank: Rank) -> Any:
    """The policy learner of a PPOJob, the resident preference trainer of a RefreshJob."""
    if job.trainer.engine == "scripted":
        from rlaif.training.scripted import ScriptedPolicyLearner, ScriptedPreferenceLearner

        return ScriptedPolicyLearner(job, rank) if isinstance(job, PPOJob) else ScriptedPreferenceLearner(job, rank)
    if isinstance(job, PPOJob):
        from rlaif.training.ppo import PPOLearner

        return PPOLearner(job, rank)
    from rlaif.training.refresh import PreferenceLearner

    return PreferenceLearner(job, rank)
