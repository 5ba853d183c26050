"""One suite for all engines (scripted, transformers, vLLM): what ``rlaif.interfaces`` promises."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlaif.config.schema import PoolSettings
from rlaif.engines import ENGINES, open_engine
from rlaif.errors import EngineError, NotFiniteError, RequestError, WeightSyncError
from rlaif.interfaces import Probe, Weights
from rlaif.records import Sampling
from tests.tiny_models import MAX_LENGTH, saved, send, tensors_of, tiny_lm, tiny_pm, weights_from

WITH_WEIGHTS = [name for name in ENGINES if name != "scripted"]
PROMPT = tuple(range(40, 80))
EOS = 257
HEAD = "lm_head.weight"


def settings(kind: str) -> PoolSettings:
    return PoolSettings(engine=kind, max_length=MAX_LENGTH, kv_cache_gib=0.25)


def sampling(seed: int = 0, temperature: float = 1.0, max_tokens: int = 24, stop: tuple[str, ...] = ()) -> Sampling:
    return Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return saved(tiny_lm(0, tied=True), tmp_path_factory.mktemp("models") / "lm")


@pytest.fixture(scope="module")
def preference_model(tmp_path_factory):
    return saved(tiny_pm(2), tmp_path_factory.mktemp("models") / "pm")


@pytest.fixture(scope="module", params=ENGINES)
def generator(request, language_model):
    engine = open_engine("generator", language_model, settings(request.param))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module", params=ENGINES)
def scorer(request, preference_model):
    engine = open_engine("scorer", preference_model, settings(request.param))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def rounding_generator(language_model):
    """A vLLM engine that serves another number format than the learner's."""
    engine = open_engine(
        "generator", language_model, PoolSettings(max_length=MAX_LENGTH, dtype="bfloat16", kv_cache_gib=0.25)
    )
    yield engine
    asyncio.run(engine.close())


def new_weights(model, version: int, sequences) -> Weights:
    return weights_from(model, version, sequences)


# ------------------------------------------------------------------------------------------------- generation
async def test_completion_is_well_formed(generator):
    completions = await asyncio.gather(
        *(generator.generate(PROMPT, sampling(seed, max_tokens=60)) for seed in range(40))
    )
    for completion in completions:
        assert len(completion.token_ids) == len(completion.logprobs) > 0
        assert all(logprob <= 0 for logprob in completion.logprobs)
        assert (completion.finish_reason == "stop") == (completion.token_ids[-1] == EOS)
        assert EOS not in completion.token_ids[:-1]
        assert "</s>" not in completion.text
        assert len(completion.token_ids) == 60 or completion.finish_reason == "stop"
    assert {completion.finish_reason for completion in completions} >= {"stop"}


async def test_seed_decides_the_sample_alone_and_in_company(generator):
    alone = await generator.generate(PROMPT, sampling(seed=7))
    together = await asyncio.gather(*(generator.generate(PROMPT, sampling(seed=seed)) for seed in range(16)))
    assert together[7].token_ids == alone.token_ids
    assert together[7].logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    assert len({completion.token_ids for completion in together}) > 8


async def test_greedy_does_not_depend_on_the_seed(generator):
    first, second = await asyncio.gather(*(generator.generate(PROMPT, sampling(seed, 0.0)) for seed in (1, 2)))
    assert first.token_ids == second.token_ids


async def test_completion_ends_where_the_engine_is_full(generator):
    prompt = [40] * (MAX_LENGTH - 3)
    completions = await asyncio.gather(
        *(generator.generate(prompt, sampling(seed, max_tokens=50)) for seed in range(8))
    )
    longest = max(completions, key=lambda completion: len(completion.token_ids))
    assert len(longest.token_ids) == 3
    assert longest.finish_reason == "length" or longest.token_ids[-1] == EOS


@pytest.mark.parametrize(
    ("prompt", "cause"),
    [
        ([], "empty"),
        ([40, 100_000], "unknown token id 100000"),
        ([40, -1], "unknown token id -1"),
        ([40, 1.5], "integers"),
        ([40] * MAX_LENGTH, "no room"),
    ],
)
async def test_bad_prompt_is_refused_and_the_engine_lives(generator, prompt, cause):
    with pytest.raises(RequestError, match=cause):
        await generator.generate(prompt, sampling())
    with pytest.raises(RequestError, match=cause):
        await generator.choice_logprobs(prompt, (40, 41))
    assert (await generator.generate(PROMPT, sampling())).token_ids


@pytest.mark.parametrize(
    "bad", [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": math.nan}, {"stop": ("",)}, {"seed": -1}]
)
async def test_bad_sampling_is_refused(generator, bad):
    with pytest.raises(RequestError):
        await generator.generate(PROMPT, replace(sampling(), **bad))


async def test_generator_does_not_score(generator):
    with pytest.raises(RequestError, match="no preference scores"):
        await generator.score((*PROMPT, EOS))


async def test_a_cancelled_request_leaves_the_others_alone(generator):
    kept = [asyncio.ensure_future(generator.generate(PROMPT, sampling(seed))) for seed in range(4)]
    cancelled = [asyncio.ensure_future(generator.generate(PROMPT, sampling(seed, max_tokens=200))) for seed in range(4)]
    await asyncio.sleep(0.01)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*kept)
    alone = await generator.generate(PROMPT, sampling(2))
    assert kept[2].result().token_ids == alone.token_ids


# ---------------------------------------------------------------------------------------------------- choices
async def test_choices_are_log_probabilities_of_the_next_token(generator):
    everything = list(range(generator.tokenizer.vocab_size))[:100]
    logprobs = await generator.choice_logprobs(PROMPT, everything)
    assert len(logprobs) == 100
    assert 0 < sum(map(math.exp, logprobs)) <= 1 + 1e-6


async def test_choices_among_completions_do_not_disturb_either(generator):
    alone = await generator.choice_logprobs(PROMPT, (0, 65))
    text = await generator.generate(PROMPT, sampling(3))
    questions = [generator.choice_logprobs(PROMPT, (0, 65)) for _ in range(8)]
    wide = [generator.choice_logprobs(PROMPT, range(10)) for _ in range(4)]
    answers = [generator.generate(PROMPT, sampling(3)) for _ in range(8)]
    asked, _, said = await asyncio.gather(asyncio.gather(*questions), asyncio.gather(*wide), asyncio.gather(*answers))
    assert np.allclose(asked, [alone] * 8, atol=1e-5)
    assert {completion.token_ids for completion in said} == {text.token_ids}
    assert np.allclose([completion.logprobs for completion in said], text.logprobs, atol=1e-5)


@pytest.mark.parametrize("choices", [(), (65, 65), (65, 100_000)])
async def test_bad_choices_are_refused(generator, choices):
    with pytest.raises(RequestError, match="choices"):
        await generator.choice_logprobs(PROMPT, choices)


# ----------------------------------------------------------------------------------------------------- scores
async def test_scores_belong_to_the_dialogue_not_to_its_company(scorer):
    dialogues = [(*range(30, 40 + length), EOS) for length in range(12)]
    together = await asyncio.gather(*map(scorer.score, dialogues))
    alone = [await scorer.score(dialogue) for dialogue in dialogues]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 4) for score in together}) == len(dialogues)


@pytest.mark.parametrize(
    ("dialogue", "cause"),
    [((), "empty"), (PROMPT, "EOS"), ((40,) * MAX_LENGTH + (EOS,), "tokens"), ((40, 999, EOS), "unknown")],
)
async def test_bad_dialogue_is_refused_and_the_engine_lives(scorer, dialogue, cause):
    with pytest.raises(RequestError, match=cause):
        await scorer.score(dialogue)
    assert math.isfinite(await scorer.score((*PROMPT, EOS)))


async def test_scorer_does_not_generate(scorer):
    with pytest.raises(RequestError, match="generates no text"):
        await scorer.generate(PROMPT, sampling())


# ---------------------------------------------------------------------------------------------------- weights
async def test_new_weights_advance_the_version_between_completions(generator):
    version = generator.policy_version + 1
    weights = new_weights(tiny_lm(version, tied=True), version, [PROMPT])
    before = asyncio.gather(*(generator.generate(PROMPT, sampling(seed)) for seed in range(8)))
    await asyncio.sleep(0)
    update = asyncio.ensure_future(send(generator, weights))
    await asyncio.sleep(0)
    after = asyncio.gather(*(generator.generate(PROMPT, sampling(seed)) for seed in range(8)))
    await update
    assert generator.policy_version == version
    for completion in await before:
        assert completion.policy_version_start == version - 1
    for completion in await after:
        assert completion.policy_version_start == completion.policy_version_end == version


async def test_older_weights_and_weights_without_a_probe_are_refused(generator):
    served = generator.policy_version
    weights = new_weights(tiny_lm(5, tied=True), served + 10, [PROMPT])
    with pytest.raises(WeightSyncError, match="older"):
        await generator.begin_weights(replace(weights.header, version=served - 1))
    with pytest.raises(WeightSyncError, match="without a probe"):
        await generator.begin_weights(replace(weights.header, probe=Probe(token_ids=(), values=())))
    with pytest.raises(WeightSyncError, match="unknown token id"):
        await generator.begin_weights(replace(weights.header, probe=Probe(token_ids=((40, 9999),), values=((0.0,),))))
    assert generator.policy_version == served
    assert (await generator.generate(PROMPT, sampling())).policy_version_end == served


async def test_scorer_takes_new_weights(scorer):
    dialogue = (*PROMPT, EOS)
    await send(scorer, new_weights(tiny_pm(11), 3, [dialogue]))
    assert scorer.policy_version == 3
    assert math.isfinite(await scorer.score(dialogue))


@pytest.mark.parametrize("kind", WITH_WEIGHTS)
async def test_weights_that_do_not_cover_the_model_are_refused_before_anything_changes(kind, language_model):
    engine = open_engine("generator", language_model, settings(kind))
    header = new_weights(tiny_lm(5, tied=True), 1, [PROMPT]).header
    before = await engine.generate(PROMPT, sampling())
    headless = {name: shape for name, shape in header.shapes.items() if name != "lm_head.weight"}
    with pytest.raises(WeightSyncError, match=r"missing lm_head\.weight"):
        await engine.begin_weights(replace(header, shapes=headless))
    with pytest.raises(WeightSyncError, match=r"unknown model\.extra"):
        await engine.begin_weights(replace(header, shapes={**header.shapes, "model.extra": (1,)}))
    with pytest.raises(WeightSyncError, match=r"model\.norm\.weight has shape \(3,\) instead of \(64,\)"):
        await engine.begin_weights(replace(header, shapes={**header.shapes, "model.norm.weight": (3,)}))
    assert (await engine.generate(PROMPT, sampling())).token_ids == before.token_ids
    await engine.close()


def spoiled(weights: Weights, name: str, array: np.ndarray) -> Weights:
    """The same weights, but for a tensor that is damaged or old."""
    buckets = [
        replace(b, tensors={**b.tensors, name: array}) if name in b.tensors else b  # its checksum stays
        for b in weights.buckets
    ]
    return replace(weights, buckets=buckets)


def wrong_weights() -> dict[str, Weights]:
    """By what the engine must say of them."""
    model, old = tiny_lm(5, tied=True), tiny_lm(0, tied=True).state_dict()
    weights = new_weights(model, 1, [PROMPT, PROMPT[:7]])
    layer, twin = "model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.v_proj.weight"
    tensors = tensors_of(weights)
    flipped = tensors[layer].copy()
    flipped.view(np.uint8)[7, 5] ^= 1
    swapped = spoiled(spoiled(weights, layer, tensors[twin]), twin, tensors[layer])
    values = tuple(tuple(value + 0.01 for value in values) for values in weights.header.probe.values)
    elsewhere = replace(weights.header, probe=replace(weights.header.probe, values=values))
    return {
        rf"sent: {layer} have other bits": spoiled(weights, layer, old[layer].numpy()),
        rf"sent: {layer} have other bits\b": spoiled(weights, layer, flipped),
        rf"{layer}, {twin} have other bits": swapped,
        r"(lm_head|embed_tokens).weight (have other bits|did not arrive)": spoiled(weights, HEAD, old[HEAD].numpy()),
        r"model.norm.weight have other bits": spoiled(weights, "model.norm.weight", np.full(64, np.nan, np.float32)),
        r"incomplete: .* have not come": replace(weights, buckets=weights.buckets[1:]),
        r"a bucket is not as announced: model.norm.weight": spoiled(weights, "model.norm.weight", np.ones(3, "f4")),
        r"45 probed values differ by 0.01 on average \(at most 0.001 in float32\)": replace(weights, header=elsewhere),
    }


@pytest.mark.parametrize("said", wrong_weights())
@pytest.mark.parametrize("kind", WITH_WEIGHTS)
async def test_weights_that_are_not_those_that_the_learner_sent_end_the_engine(kind, said, language_model):
    engine = open_engine("generator", language_model, settings(kind))
    with pytest.raises(WeightSyncError, match=said):
        await send(engine, wrong_weights()[said])
    with pytest.raises(EngineError, match="must be replaced"):
        await engine.generate(PROMPT, sampling())
    await engine.close()


@pytest.mark.parametrize("kind", WITH_WEIGHTS)
async def test_paused_completions_go_on_under_the_new_weights(kind, language_model):
    """Up to some token, log-probabilities are the old model's; from there on, the new one's."""
    engine = open_engine("generator", language_model, settings(kind).model_copy(update={"on_new_weights": "pause"}))
    new = tiny_lm(5, tied=True)
    weights = new_weights(new, 1, [PROMPT, PROMPT[:7]])
    running = [asyncio.ensure_future(engine.generate(PROMPT, sampling(seed, max_tokens=150))) for seed in range(12)]
    while not any(one.done() for one in running):  # answers differ in length, so some are still unfinished
        await asyncio.sleep(0.001)
    await send(engine, weights)
    late = await engine.generate(PROMPT, sampling(1))
    completions = await asyncio.gather(*running)
    await engine.close()

    assert (late.policy_version_start, late.policy_version_end) == (1, 1)
    assert late.logprobs == pytest.approx(reference(new, late.token_ids), abs=1e-4)
    mixed = [completion for completion in completions if completion.policy_version_end == 1]
    assert 0 < len(mixed) < len(completions)
    for completion in completions:
        assert completion.policy_version_start == 0
        before, after = (reference(model, completion.token_ids) for model in (tiny_lm(0, tied=True), new))
        num_new = sum(np.isclose(completion.logprobs, after, atol=1e-4))
        changed = len(before) - num_new if completion.policy_version_end == 1 else len(before)
        assert completion.logprobs == pytest.approx(before[:changed] + after[changed:], abs=1e-4)
    assert any(np.isclose(one.logprobs, reference(new, one.token_ids), atol=1e-4).any() for one in mixed)


def reference(model, token_ids) -> list[float]:
    """Log-probability of each of ``token_ids`` after the prompt, by transformers."""
    model.eval()
    with torch.no_grad():
        logprobs = model(torch.tensor([[*PROMPT, *token_ids]])).logits[0].log_softmax(-1)
    return [logprobs[len(PROMPT) + t - 1, token].item() for t, token in enumerate(token_ids)]


# ------------------------------------------------------------------------------------------------ stop and end
@pytest.mark.parametrize("kind", WITH_WEIGHTS)
async def test_stop_strings_and_closing(kind, language_model):
    engine = open_engine("labeller", language_model, settings(kind))
    free = await engine.generate(PROMPT, sampling(seed=1, max_tokens=40))
    place = next(i for i, token in enumerate(free.token_ids) if i > 5 and 33 < token < 60)
    stop = engine.tokenizer.decode([free.token_ids[place]])
    stopped = await engine.generate(PROMPT, sampling(seed=1, max_tokens=40, stop=(stop,)))
    first = free.text.index(stop)
    assert stopped.finish_reason == "stop"
    assert stopped.text == free.text[:first]
    assert stopped.token_ids == free.token_ids[: len(stopped.token_ids)]
    assert engine.tokenizer.decode([stopped.token_ids[-1]]) == stop

    waiting = asyncio.ensure_future(engine.generate(PROMPT, sampling(max_tokens=200)))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineError, match="closed"):
        await waiting
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(PROMPT, sampling())


def test_an_engine_that_cannot_start_says_what_there_was_and_what_it_asked_for(language_model):
    with pytest.raises(EngineError) as refused:
        open_engine("labeller", language_model, PoolSettings(max_length=MAX_LENGTH, kv_cache_gib=100_000))
    line = str(refused.value)
    assert "\n" not in line
    assert re.search(
        r"lm cannot be loaded: this machine had [\d.]+ of [\d.]+ GiB free, and the engine asked for 100000 GiB for its "
        r"cache \(labeller\.kv_cache_gib\): ValueError: .*; set labeller\.kv_cache_gib to less than [\d.]+$",
        line,
    ), line


async def test_weights_are_served_in_the_engines_number_format(rounding_generator):
    before = await rounding_generator.choice_logprobs(PROMPT, [40, 41])
    for version, dtype in ((1, torch.bfloat16), (2, torch.float32)):
        learned = tiny_lm(9 + version, tied=True).to(dtype)
        await send(rounding_generator, new_weights(learned, version, [PROMPT]))
        after = await rounding_generator.choice_logprobs(PROMPT, [40, 41])
        assert rounding_generator.policy_version == version
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 0.05
        before = after


# -------------------------------------------------------------------------------------------- damaged weights
@pytest.mark.parametrize("kind", WITH_WEIGHTS)
async def test_numbers_that_are_not_finite_are_refused_and_the_engine_lives(kind, tmp_path):
    """NaN in the last norm makes all logits NaN; with sound weights the same engine serves again."""
    model = tiny_lm(0, tied=True)
    sound = new_weights(model, 1, [PROMPT])
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    engine = open_engine("generator", saved(model, tmp_path), settings(kind))
    try:
        for _ in range(2):
            with pytest.raises(NotFiniteError, match="not finite"):
                await engine.choice_logprobs(PROMPT, (40, 41))
            with pytest.raises(NotFiniteError, match="not finite"):
                await engine.generate(PROMPT, sampling(max_tokens=4))
        await send(engine, sound)
        assert all(map(math.isfinite, await engine.choice_logprobs(PROMPT, (40, 41))))
    finally:
        await engine.close()


@pytest.mark.parametrize("kind", WITH_WEIGHTS)
async def test_a_score_that_is_not_finite_is_refused(kind, tmp_path):
    model = tiny_pm(2)
    with torch.no_grad():
        model.model.norm.weight[0] = math.inf
    engine = open_engine("scorer", saved(model, tmp_path), settings(kind))
    try:
        with pytest.raises(NotFiniteError, match="not finite"):
            await engine.score((*PROMPT, EOS))
    finally:
        await engine.close()
