"""Tiny models and rows for the training tests."""

import random

import pyarrow as pa
import pytest

from rlaif.config.schema import Optimization, PreferenceModel, Reinforcement
from rlaif.config.trainer import Trainer
from rlaif.jobs import PPOJob, PreferenceJob, SFTJob
from rlaif.records import ScoredSample
from rlaif.training.gathering import gathered_state
from rlaif.training.training_sets import PAIR_SCHEMA
from tests.tiny_models import saved, tiny_lm, tiny_pm, tiny_tokenizer

EOS = tiny_tokenizer().eos_token_id
TRAINER = Trainer(micro_batch_tokens=64)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> str:
    return saved(tiny_lm(0, tied=True), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def scorer(tmp_path_factory) -> str:
    return saved(tiny_pm(1), tmp_path_factory.mktemp("scorer"))


def sft_rows(count: int) -> list[dict]:
    draw = random.Random(0)
    return [
        {
            "id": str(i),
            "input_ids": [*draw.choices(range(256), k=draw.randint(4, 24)), EOS],
            "prompt_length": draw.randint(0, 3),
        }
        for i in range(count)
    ]


def pair_rows(count: int) -> list[dict]:
    """Dialogues that contain byte 7 are better, which a preference model can learn."""
    draw = random.Random(0)

    def dialogue(good: bool) -> list[int]:
        ids = draw.choices(range(8, 256), k=draw.randint(4, 16))
        return [*ids[:2], *([7] if good else []), *ids[2:], EOS]

    rows = []
    for i in range(count):
        first_is_good = bool(draw.getrandbits(1))
        rows.append(
            {
                "id": str(i),
                "axis": draw.choice(["red_team", "helpful"]),
                "input_ids_1": dialogue(first_is_good),
                "input_ids_2": dialogue(not first_is_good),
                "prob": 0.95 if first_is_good else 0.05,
                "weight": draw.choice([1.0, 2.0]),
            }
        )
    return rows


def pair_table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, PAIR_SCHEMA)


def rollouts(count: int, group_size: int = 1) -> list[ScoredSample]:
    draw = random.Random(0)
    samples = []
    for i in range(count):
        if i % group_size == 0:
            prompt = tuple(draw.choices(range(256), k=draw.randint(2, 8)))
        response = tuple(draw.choices(range(256), k=draw.randint(1, 10)))
        samples.append(
            ScoredSample(
                id=f"prompts.jsonl:{i}",
                axis=draw.choice(["red_team", "helpful"]),
                prompt_ids=prompt,
                response_ids=(*response, EOS),
                logprobs=tuple(draw.uniform(-8, -4) for _ in range(len(response) + 1)),
                finish_reason=draw.choice(["stop", "stop", "length"]),
                score=draw.gauss(0, 1),
                policy_version_start=0,
                preference_model_version=0,
            )
        )
    return samples


def sft_job(base: str, output: object, trainer: Trainer = TRAINER) -> SFTJob:
    return SFTJob(
        base_model=base,
        dataset="rows.parquet",
        output=str(output),
        max_length=20,
        optimization=Optimization(batch_size=8, learning_rate=1e-2, warmup_steps=1, weight_decay=0.1),
        trainer=trainer,
        seed=0,
    )


def preference_job(base: str, output: object, trainer: Trainer = TRAINER) -> PreferenceJob:
    optimization = Optimization(batch_size=8, learning_rate=3e-3, warmup_steps=0)
    return PreferenceJob(
        base_model=base,
        pretraining=None,
        fit="pairs.parquet",
        heldout=None,
        output=str(output),
        unfitted=f"{output}-unfitted",
        settings=PreferenceModel(pretraining=optimization, fit=optimization, max_length=64),
        trainer=trainer,
        seed=0,
    )


def ppo_job(policy: str, scorer: str, trainer: Trainer = TRAINER, **settings) -> PPOJob:
    rates = {"learning_rate": 1e-3, "value_learning_rate": 1e-3, "warmup_steps": 0}
    chosen = {"minibatch_size": 8, "epochs": 2, **rates, **settings}
    return PPOJob(
        policy=policy,
        preference_model=scorer,
        settings=Reinforcement(**chosen),
        temperature=0.8,
        trainer=trainer,
        seed=0,
    )


def in_batches(rows: list, size: int = 8) -> list[list]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def full_state(model) -> dict:
    """All weights of a ``DeepSpeedModel`` on the CPU, by their names; every rank must call it."""
    return {name: tensor.detach().cpu().clone() for name, tensor in gathered_state(model.module)}
