"""vLLM serves exactly what training saves and sends: preference scores, synced weights, both sides of the gap."""

import asyncio

import pytest

from rlaif.config.schema import PoolSettings
from rlaif.engines import open_engine
from rlaif.jobs import Rank
from rlaif.records import Sampling, ScoredSample
from rlaif.training.deepspeed import DeepSpeedModel
from rlaif.training.models import load_scorer
from rlaif.training.ppo import PPOLearner
from rlaif.training.preference import PairFit, run_preference
from tests.tiny_models import saved, send, tiny_lm, tiny_pm
from tests.unit.training.conftest import pair_rows, ppo_job, preference_job

SETTINGS = PoolSettings(engine="vllm", max_length=256, kv_cache_gib=0.25)


async def test_a_fitted_preference_model_gives_its_training_scores(tmp_path):
    rows = pair_rows(16)
    job = preference_job(saved(tiny_lm(0, tied=True), tmp_path / "base"), tmp_path / "pm")
    run_preference(job, Rank(), None, [rows] * 5, None, lambda metrics: None)
    engine = DeepSpeedModel.supervised(load_scorer(job.output, "float32"), job.trainer, Rank(), job.settings.fit)
    pairs = PairFit("fit", job, Rank(), engine).score(rows)
    engine = open_engine("scorer", job.output, SETTINGS)
    try:
        served = await asyncio.gather(*(engine.score(row["input_ids_1"]) for row in rows))
    finally:
        await engine.close()
    assert list(served) == pytest.approx([pair.score_1 for pair in pairs], abs=1e-4)
    assert max(served) - min(served) > 0.05


async def test_a_learned_policy_is_synced_and_its_rollouts_show_no_gap(tmp_path):
    policy, scorer = saved(tiny_lm(0, tied=True), tmp_path / "policy"), saved(tiny_pm(1), tmp_path / "scorer")
    job = ppo_job(policy, scorer)
    learner = PPOLearner(job, Rank())
    engine = open_engine("generator", policy, SETTINGS)
    try:
        for version in (1, 2):
            learned = learner.learn(await sampled(engine, job.temperature))
            assert learned.metrics["reinforce/gap/abs_logprob_difference"] < 1e-4
            assert learned.metrics["reinforce/gap/effective_sample_size"] == pytest.approx(1, abs=1e-3)
            await send(engine, learner.weights())
            assert engine.policy_version == version
    finally:
        await engine.close()


async def sampled(engine, temperature) -> list[ScoredSample]:
    prompts = [tuple(range(start, start + 5)) for start in range(16)]
    completions = await asyncio.gather(
        *(engine.generate(p, Sampling(max_tokens=8, temperature=temperature, seed=p[0])) for p in prompts)
    )
    return [
        ScoredSample(
            id=f"prompts.jsonl:{prompt[0]}",
            axis="red_team",
            prompt_ids=prompt,
            response_ids=done.token_ids,
            logprobs=done.logprobs,
            finish_reason=done.finish_reason,
            score=float(len(set(done.token_ids))),
            policy_version_start=done.policy_version_start,
            preference_model_version=0,
        )
        for prompt, done in zip(prompts, completions, strict=True)
    ]
