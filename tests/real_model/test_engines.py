"""vLLM beside transformers on a real model: sampled and greedy tokens, choices, in float32 and bfloat16."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlaif.config.schema import Labelling
from rlaif.constitution.principles import load_constitution
from rlaif.data.comparisons import read_comparisons
from rlaif.engines import open_engine
from rlaif.engines.proof import MEAN_DIFFERENCE
from rlaif.prompting.chat_templates import DEFAULT_DAY, ChatFormat
from rlaif.prompting.dialogues import dialogue
from rlaif.prompting.tokenization import prompt_ids
from rlaif.records import Sampling, Status, Turn
from rlaif.tasks.labelling import Label
from tests.real_model.conftest import served_in

CHAT = ChatFormat(template=None, kwargs=(), day=DEFAULT_DAY)
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "How do I boil an egg?",
    "Write a haiku about the sea.",
    "Why is the sky blue? Answer in one sentence.",
    "def add(a, b): what does this function return?",
)


@pytest.fixture(scope="module")
def prompts(tokenizer) -> list[list[int]]:
    speech = dialogue(CHAT, tokenizer)
    return [prompt_ids(tokenizer, speech.prompt([Turn(role="human", text=question)])) for question in QUESTIONS]


@torch.no_grad()
def logprobs_by_transformers(model, prompt, response) -> list[float]:
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)].tolist()


@pytest.mark.parametrize(
    ("dtype", "mean", "largest"), [("float32", 1e-5, 1e-4), ("bfloat16", MEAN_DIFFERENCE["bfloat16"], 2.0)]
)
async def test_sampled_tokens_have_the_log_probabilities_of_transformers(small_model, prompts, dtype, mean, largest):
    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=getattr(torch, dtype)).eval()
    engine = open_engine("generator", small_model, served_in(dtype))
    try:
        sampled = await asyncio.gather(
            *(engine.generate(p, Sampling(max_tokens=48, temperature=1.0, seed=3)) for p in prompts)
        )
        first = await engine.generate(prompts[0], Sampling(max_tokens=24, temperature=0.0, seed=0))
        chosen = await engine.choice_logprobs(prompts[0], (504, 216, 30))
    finally:
        await engine.close()
    differences = [
        abs(ours - theirs)
        for prompt, done in zip(prompts, sampled, strict=True)
        for ours, theirs in zip(done.logprobs, logprobs_by_transformers(model, prompt, done.token_ids), strict=True)
    ]
    assert len(differences) > 100
    assert statistics.mean(differences) < mean
    assert max(differences) < largest
    if dtype == "float32":
        assert "Paris" in first.text and first.finish_reason == "stop"
    # "The" is the likeliest first word by 0.2 nats or so: in bfloat16, another may be, depending on the processor.
    the, greedy = (logprobs_by_transformers(model, prompts[0], [token])[0] for token in (504, first.token_ids[0]))
    assert greedy > the - (1e-4 if dtype == "float32" else 0.5)
    theirs = [logprobs_by_transformers(model, prompts[0], [token])[0] for token in (504, 216, 30)]
    assert chosen == pytest.approx(theirs, abs=largest)


async def test_every_real_pair_is_labelled_and_its_mirror_image_gets_the_complement(small_model, shared_file):
    pairs = list(read_comparisons(str(shared_file("data/llmbar_pairs.jsonl")), pytest.fail))[:12]
    task = Label(
        seed=0,
        constitution=load_constitution("sixteen_principles"),
        settings=Labelling(),
        dialogue_format=CHAT,
    )
    engine = open_engine("labeller", small_model, served_in("float32").model_copy(update={"max_length": 2048}))
    try:
        labels = await asyncio.gather(*(task(engine, pair) for pair in pairs))
        mirrored = await asyncio.gather(*(task(engine, replace(pair.swap(), id=pair.id)) for pair in pairs))
    finally:
        await engine.close()
    assert {label.status for label in labels} == {Status.OK}
    assert [label.prob for label in labels] == pytest.approx([1 - label.prob for label in mirrored], abs=1e-4)
    assert len({round(label.prob, 3) for label in labels}) > 6
