"""Which trainer a job's configuration asks for: DeepSpeed's or the scripted one. Both take the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlaif.engines.turns import turn_to_start
from rlaif.jobs import PPOJob, PreferenceJob, Rank, RefreshJob, SFTJob

if TYPE_CHECKING:
    from rlaif.training.ppo import PPOLearner
    from rlaif.training.refresh import RefreshLearner
    from rlaif.training.scripted import ScriptedPolicyLearner, ScriptedPreferenceLearner

    RankLearner = PPOLearner | RefreshLearner | ScriptedPolicyLearner | ScriptedPreferenceLearner


def fit_function(job: SFTJob | PreferenceJob) -> Callable[..., dict[str, float]]:
    """``run_sft`` or ``run_preference``, or their scripted counterparts."""
    if job.trainer.engine == "scripted":
        from rlaif.training.scripted import scripted_preference, scripted_sft

        return scripted_sft if isinstance(job, SFTJob) else scripted_preference
    if isinstance(job, SFTJob):
        from rlaif.training.sft import run_sft

        return run_sft
    from rlaif.training.preference import run_preference

    return run_preference


def open_learner(job: PPOJob | RefreshJob, rank: Rank) -> RankLearner:
    """One rank of the policy learner (PPOJob) or of the resident preference trainer (RefreshJob).

    On a shared GPU it waits for its turn to load. The fits need none: they have their card to themselves.
    """
    with turn_to_start("policy_trainer" if isinstance(job, PPOJob) else "preference_trainer", job.trainer.gpus):
        return _load_learner(job, rank)


def _load_learner(job: PPOJob | RefreshJob, rank: Rank) -> RankLearner:
    if job.trainer.engine == "scripted":
        from rlaif.training.scripted import ScriptedPolicyLearner, ScriptedPreferenceLearner

        return ScriptedPolicyLearner(job, rank) if isinstance(job, PPOJob) else ScriptedPreferenceLearner(job, rank)
    if isinstance(job, PPOJob):
        from rlaif.training.ppo import PPOLearner

        return PPOLearner(job, rank)
    from rlaif.training.refresh import RefreshLearner

    return RefreshLearner(job, rank)
