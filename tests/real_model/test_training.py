"""SFT, the preference model and PPO on a real model, and that vLLM serves what they leave."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from rlaif.config.schema import Optimization, PreferenceModel, Reinforcement
from rlaif.config.trainer import Trainer
from rlaif.data.pairs import read_pairs
from rlaif.engines import open_engine
from rlaif.jobs import PPOJob, PreferenceJob, Rank, SFTJob
from rlaif.prompting.chat_templates import DEFAULT_DAY, ChatFormat
from rlaif.prompting.dialogues import dialogue
from rlaif.prompting.tokenization import encode, prompt_ids
from rlaif.records import Sampling, ScoredSample
from rlaif.training.deepspeed import DeepSpeedModel
from rlaif.training.models import load_scorer
from rlaif.training.ppo import PPOLearner
from rlaif.training.preference import PairFit, run_preference
from rlaif.training.sft import run_sft
from tests.checkpoints import write_checkpoint
from tests.real_model.conftest import served_in
from tests.tiny_models import send

CHAT = ChatFormat(template=None, kwargs=(), day=DEFAULT_DAY)
TRAINER = Trainer(threads=2, micro_batch_tokens=512)
MAX_PAIR_TOKENS = 256


@pytest.fixture(scope="module")
def pairs(tokenizer, shared_file) -> list[dict]:
    """Eight real pairs as a preference model reads them."""
    speech = dialogue(CHAT, tokenizer)
    rows = []
    for pair in read_pairs(str(shared_file("data/llmbar_pairs.jsonl")), pytest.fail):
        prompt = prompt_ids(tokenizer, speech.prompt(pair.prompt))
        chosen, rejected = (
            [*prompt, *encode(tokenizer, answer), tokenizer.eos_token_id] for answer in (pair.chosen, pair.rejected)
        )
        if max(len(chosen), len(rejected)) <= MAX_PAIR_TOKENS:
            row = {"id": pair.id, "axis": "helpful", "input_ids_1": chosen, "input_ids_2": rejected}
            rows.append({**row, "prob": 1.0, "weight": 1.0, "prompt_length": len(prompt)})
        if len(rows) == 8:
            return rows
    raise AssertionError("too few short pairs")


def test_fine_tuning_lowers_the_loss_on_real_answers(small_model, pairs, tmp_path):
    rows = [{"id": r["id"], "input_ids": r["input_ids_1"], "prompt_length": r["prompt_length"]} for r in pairs]
    losses = []
    run_sft(
        SFTJob(
            base_model=small_model,
            dataset="rows.parquet",
            output=str(tmp_path / "sft"),
            max_length=MAX_PAIR_TOKENS,
            optimization=Optimization(batch_size=8, learning_rate=1e-4, warmup_steps=0),
            trainer=TRAINER,
            seed=0,
        ),
        Rank(),
        [rows] * 3,
        lambda metrics: losses.append(metrics["supervise/loss/step"]),
    )
    assert losses[-1] < 0.9 * losses[0]


async def test_the_fitted_preference_model_is_served_with_its_scores(small_model, pairs, tmp_path):
    job = PreferenceJob(
        base_model=small_model,
        pretraining=None,
        fit="pairs.parquet",
        heldout=None,
        output=str(tmp_path / "pm"),
        unfitted=str(tmp_path / "unfitted"),
        settings=PreferenceModel(
            fit=Optimization(batch_size=8, learning_rate=1e-4, warmup_steps=0), max_length=MAX_PAIR_TOKENS
        ),
        trainer=TRAINER,
        seed=0,
    )
    run_preference(job, Rank(), None, [pairs] * 2, None, lambda metrics: None)
    model = DeepSpeedModel.supervised(load_scorer(job.output, "float32"), TRAINER, Rank(), job.settings.fit)
    learned = [pair.score_1 for pair in PairFit("fit", job, Rank(), model).score(pairs)]
    model.close()
    engine = open_engine("scorer", job.output, served_in("float32"))
    try:
        served = await asyncio.gather(*(engine.score(row["input_ids_1"]) for row in pairs))
    finally:
        await engine.close()
    assert list(served) == pytest.approx(learned, abs=1e-4)
    assert max(served) - min(served) > 0.01


async def test_ppo_steps_are_synced_without_a_gap_and_go_on_from_a_checkpoint(small_model, pairs, tmp_path):
    job = PPOJob(
        policy=small_model,
        preference_model=None,
        settings=Reinforcement(minibatch_size=8, learning_rate=1e-5, value_learning_rate=1e-5, warmup_steps=0),
        temperature=1.0,
        trainer=TRAINER,
        seed=0,
    )
    learner = PPOLearner(job, Rank())
    engine = open_engine("generator", small_model, served_in("float32"))
    try:
        learned = learner.learn(await rollouts(engine, pairs))
        assert learned.metrics["reinforce/gap/abs_logprob_difference"] < 1e-4
        await send(engine, learner.weights())
        assert engine.policy_version == 1
        second = await rollouts(engine, pairs)
        write_checkpoint(learner, tmp_path / "checkpoint")
        learned = learner.learn(second)
        assert learned.metrics["reinforce/gap/abs_logprob_difference"] < 1e-4
    finally:
        await engine.close()
    learner.save(tmp_path / "undisturbed")
    learner.close()

    resumed = PPOLearner(replace(job, checkpoint=str(tmp_path / "checkpoint")), Rank())
    resumed.learn(second)
    resumed.save(tmp_path / "resumed")
    resumed.close()
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("resumed", "undisturbed"))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


async def rollouts(engine, pairs) -> list[ScoredSample]:
    prompts = [row["input_ids_1"][: row["prompt_length"]] for row in pairs]
    completions = await asyncio.gather(
        *(engine.generate(p, Sampling(max_tokens=24, temperature=1.0, seed=seed)) for seed, p in enumerate(prompts))
    )
    return [
        ScoredSample(
            id=f"pairs.jsonl:{place}",
            axis="helpful",
            prompt_ids=tuple(prompt),
            response_ids=done.token_ids,
            logprobs=done.logprobs,
            finish_reason=done.finish_reason,
            score=float(len(set(done.token_ids))),
            policy_version_start=done.policy_version_start,
            preference_model_version=0,
        )
        for place, (prompt, done) in enumerate(zip(prompts, completions, strict=True))
    ]
