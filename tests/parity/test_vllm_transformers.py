"""vLLM against transformers in float32: equal tokens, log-probabilities and scores, before and after a weight sync."""

from __future__ import annotations

import asyncio

import pytest
import torch

from rlaif.config.schema import PoolSettings
from rlaif.engines import open_engine
from rlaif.records import Sampling
from tests.tiny_models import MAX_LENGTH, saved, scores_of, send, tiny_lm, tiny_pm, weights_from

SETTINGS = PoolSettings(engine="vllm", max_length=MAX_LENGTH, kv_cache_gib=0.25)
PROMPTS = [
    [start % 200 + step % 50 for step in range(length)] for start, length in [(3, 5), (40, 33), (90, 64), (7, 101)]
]
EOS = 257


@torch.no_grad()
def reference_logprobs(model, prompt, response, temperature: float) -> list[float]:
    """Log-probability of each response token at the sampling temperature, by transformers: [T]."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs[torch.arange(len(response)), torch.tensor(response)].tolist()


@torch.no_grad()
def reference_greedy(model, prompt, num: int) -> list[int]:
    ids = list(prompt)
    for _ in range(num):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == EOS:
            break
    return ids[len(prompt) :]


async def assert_generates_like(engine, model) -> None:
    for temperature in (0.0, 0.7, 1.0):
        sampling = Sampling(max_tokens=16, temperature=temperature, seed=5)
        completions = await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in PROMPTS))
        for prompt, completion in zip(PROMPTS, completions, strict=True):
            expected = reference_logprobs(model, prompt, completion.token_ids, temperature or 1.0)
            assert completion.logprobs == pytest.approx(expected, abs=1e-4)
            if temperature == 0.0:
                assert list(completion.token_ids) == reference_greedy(model, prompt, 16)


async def assert_chooses_like(engine, model) -> None:
    choices = (65, 66, 0)
    given = await asyncio.gather(*(engine.choice_logprobs(prompt, choices) for prompt in PROMPTS))
    for prompt, logprobs in zip(PROMPTS, given, strict=True):
        expected = [reference_logprobs(model, prompt, [choice], 1.0)[0] for choice in choices]
        assert logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("tied", [True, False])
async def test_language_model_before_and_after_a_weight_sync(tied, tmp_path):
    first, second = tiny_lm(1, tied=tied), tiny_lm(2, tied=tied)
    engine = open_engine("generator", saved(first, tmp_path / "lm"), SETTINGS)
    try:
        await assert_generates_like(engine, first)
        await assert_chooses_like(engine, first)
        await send(engine, weights_from(second, 1, PROMPTS))
        await assert_generates_like(engine, second)
        await assert_chooses_like(engine, second)
    finally:
        await engine.close()


async def test_preference_model_before_and_after_a_weight_sync(tmp_path):
    first, second = tiny_pm(1), tiny_pm(2)
    dialogues = [[*prompt, EOS] for prompt in PROMPTS]
    engine = open_engine("scorer", saved(first, tmp_path / "pm"), SETTINGS)
    try:
        for model, version in ((first, 0), (second, 1)):
            if version:
                await send(engine, weights_from(model, version, dialogues))
            expected = scores_of(model, dialogues)
            assert list(await asyncio.gather(*map(engine.score, dialogues))) == pytest.approx(expected, abs=1e-4)
    finally:
        await engine.close()


async def test_two_engines_in_one_process_outlive_each_other(tmp_path):
    """A generator and a scorer step alternately; closing one leaves the other intact, and a third can be opened."""
    model, preference_model = tiny_lm(3, tied=True), tiny_pm(3)
    paths = saved(model, tmp_path / "lm"), saved(preference_model, tmp_path / "pm")
    generator = open_engine("generator", paths[0], SETTINGS)
    scorer = open_engine("scorer", paths[1], SETTINGS)
    dialogues = [[*prompt, EOS] for prompt in PROMPTS]
    expected = pytest.approx(scores_of(preference_model, dialogues), abs=1e-4)
    scores, _ = await asyncio.gather(
        asyncio.gather(*map(scorer.score, dialogues)), assert_generates_like(generator, model)
    )
    assert list(scores) == expected
    await generator.close()
    assert [await scorer.score(dialogue) for dialogue in dialogues] == expected
    labeller = open_engine("labeller", paths[0], SETTINGS)
    await assert_chooses_like(labeller, model)
    await scorer.close()
    await assert_generates_like(labeller, model)
    await labeller.close()


async def test_shared_prefixes_are_read_from_the_cache_until_weights_change(tmp_path):
    first, second = tiny_lm(4, tied=True), tiny_lm(5, tied=True)
    engine = open_engine("labeller", saved(first, tmp_path / "lm"), SETTINGS)
    question = [*range(100), 7]
    try:
        await engine.choice_logprobs(question, (65, 66))
        assert engine.prefix_hits() == (0, 101)
        await engine.choice_logprobs([*question[:-1], 8], (65, 66))
        assert engine.prefix_hits() == (96, 202)
        await send(engine, weights_from(second, 1, [[1, 2]]))
        hits, asked = engine.prefix_hits()
        logprobs = await engine.choice_logprobs(question, (65, 66))
        assert engine.prefix_hits() == (hits, asked + 101)
        assert logprobs[0] == pytest.approx(reference_logprobs(second, question, [65], 1.0)[0], abs=1e-4)
    finally:
        await engine.close()
