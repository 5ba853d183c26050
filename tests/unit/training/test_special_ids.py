"""Policy and preference model from sibling checkpoints: one vocabulary, but other EOS and padding tokens."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from rlaif.config.schema import PoolSettings
from rlaif.engines import open_engine
from rlaif.engines.models import read_model
from rlaif.jobs import Rank
from rlaif.prompting.chat_templates import ChatFormat
from rlaif.prompting.formats import policy_tokenizer
from rlaif.records import Completion, RolloutSample, Turn
from rlaif.tasks.sampling import ScoreSample
from rlaif.training.preference import run_preference
from rlaif.training.sft import run_sft
from tests.tiny_models import tiny_config, tiny_tokenizer
from tests.unit.prompting.chat_tokenizers import CHATML
from tests.unit.provenance import PROVENANCE
from tests.unit.training.conftest import in_batches, preference_job, sft_job, sft_rows

SPECIALS = ["<|im_start|>", "<|im_end|>"]


def saved(path: Path, *, eos: str, pad: str, template: str | None = None) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIALS})
    tokenizer.add_special_tokens({"eos_token": eos, "pad_token": pad})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    config = tiny_config(tied=True)
    config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def siblings(tmp_path_factory) -> dict[str, str]:
    """A base policy that ends answers with ``</s>``, and its chat sibling, which ends them with ``<|im_end|>`` and pads
    with ``</s>``. In both, a chat template ends turns with ``<|im_end|>``."""
    root = tmp_path_factory.mktemp("siblings")
    return {
        "base": saved(root / "base", eos="</s>", pad="<pad>", template=CHATML),
        "chat": saved(root / "chat", eos="<|im_end|>", pad="</s>", template=CHATML),
    }


def policy_of(siblings: dict[str, str], path: Path, format: str | ChatFormat) -> str:
    policy_tokenizer(siblings["base"], format).save_pretrained(path)
    return str(path)


def pairs(eos: int) -> list[dict]:
    """Dialogues that contain byte 7 are better."""
    draw = random.Random(0)
    rows = []
    for i in range(160):
        ids = [draw.choices(range(8, 256), k=draw.randint(4, 16)) for _ in range(2)]
        better = i % 2
        ids[better].insert(2, 7)
        first, second = ([*one, eos] for one in ids)
        prob = 0.05 if better else 0.95
        rows.append({"id": str(i), "axis": "helpful", "input_ids_1": first, "input_ids_2": second, "prob": prob})
    return [{**row, "weight": 1.0} for row in rows]


def rollout(ids: list[int], *, ended: bool) -> RolloutSample:
    completion = Completion(
        token_ids=tuple(ids[2:] if ended else ids[2:-1]),
        logprobs=(-1.0,) * (len(ids) - (2 if ended else 3)),
        text="...",
        finish_reason="stop" if ended else "length",
        policy_version_start=0,
        policy_version_end=0,
    )
    return RolloutSample(
        id="f:1@red_team.0.0#0",
        **PROVENANCE,
        axis="red_team",
        prompt=(Turn(role="human", text="Hi"),),
        prompt_ids=tuple(ids[:2]),
        completion=replace(completion, text=tiny_tokenizer().decode(completion.token_ids, skip_special_tokens=True)),
        truncated=False,
    )


@pytest.mark.parametrize("format", ["human_assistant", ChatFormat(may_think=False)], ids=["base format", "chat"])
def test_scores_in_rl_are_read_where_the_model_was_trained_to_be_read(siblings, format, tmp_path):
    policy = policy_of(siblings, tmp_path / "policy", format)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    rows = pairs(tokenizer.eos_token_id)
    job = replace(preference_job(siblings["chat"], tmp_path / "pm"), tokenizer=policy)
    metrics = run_preference(job, Rank(), None, in_batches(rows[:128]) * 4, rows[128:], lambda _: None)
    assert metrics["preference/heldout/accuracy"] > 0.8
    for path in (job.output, job.unfitted):
        made = AutoTokenizer.from_pretrained(path)
        assert (made.eos_token, made.chat_template) == (tokenizer.eos_token, tokenizer.chat_template)
        assert made.pad_token_id != made.eos_token_id
    model = AutoModelForSequenceClassification.from_pretrained(job.output).eval()
    assert model.config.eos_token_id == tokenizer.eos_token_id != model.config.pad_token_id
    settings = PoolSettings(engine="hf", max_length=64)
    engine = open_engine("scorer", job.output, settings)
    task = ScoreSample(dialogue_format=format)
    for row in rows[128:136]:
        for ended in (True, False):
            with torch.no_grad():
                trained = model(torch.tensor([row["input_ids_1"]])).logits.item()
            scored = asyncio.run(task(engine, rollout(row["input_ids_1"], ended=ended)))
            assert scored.score == pytest.approx(trained, abs=1e-4)
    asyncio.run(engine.close())


def test_sl_cai_is_saved_with_the_eos_that_it_was_taught(siblings, tmp_path):
    policy = policy_of(siblings, tmp_path / "policy", ChatFormat(may_think=False))
    job = replace(sft_job(siblings["base"], tmp_path / "sl_cai"), tokenizer=policy)
    run_sft(job, Rank(), in_batches(sft_rows(16)), lambda _: None)
    tokenizer = AutoTokenizer.from_pretrained(job.output)
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|im_end|>", CHATML)
    served = read_model(job.output, field="generator.model", max_length=64, pooling=False)
    assert served.eos_id == tokenizer.eos_token_id
    assert served.end_ids == frozenset(tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"]))
    saved_model = LlamaForCausalLM.from_pretrained(job.output)
    assert saved_model.config.eos_token_id == tokenizer.eos_token_id
    assert saved_model.generation_config.eos_token_id[0] == tokenizer.eos_token_id


def test_the_token_that_ends_a_turn_ends_an_answer_whatever_the_model_declares(siblings):
    """Few fine-tuned models name their end of turn in generation_config.json."""
    served = read_model(siblings["base"], field="generator.model", max_length=64, pooling=False)
    assert served.end_ids == frozenset(
        AutoTokenizer.from_pretrained(siblings["base"]).convert_tokens_to_ids(["</s>", "<|im_end|>"])
    )
