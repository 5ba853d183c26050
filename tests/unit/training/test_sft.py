"""Supervised fine-tuning in one process."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif.errors import DataError
from rlaif.jobs import Rank
from rlaif.training.sft import learnable_rows, run_sft
from tests.unit.training.conftest import in_batches, sft_job, sft_rows


def ignore(metrics):
    pass


def stock_loss(path, rows):
    model = AutoModelForCausalLM.from_pretrained(path)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logprobs = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
            for t in range(row["prompt_length"], len(row["input_ids"])):
                total -= logprobs[t - 1, row["input_ids"][t]].item()
                count += 1
    return total / count


def test_first_loss_is_the_stock_loss_on_answers_and_training_lowers_it(base, tmp_path):
    rows = sft_rows(20)
    kept, counts = learnable_rows(rows, 20)
    assert 0 < len(kept) < len(rows)
    reported = []
    metrics = run_sft(sft_job(base, tmp_path), Rank(), [kept] * 8, reported.append)
    assert metrics["supervise/loss/first"] == pytest.approx(stock_loss(base, kept), rel=1e-5)
    assert metrics["supervise/loss/final"] < metrics["supervise/loss/first"] - 1
    assert stock_loss(tmp_path, kept) < metrics["supervise/loss/final"]
    assert len(reported) == 8 and reported[-1]["supervise/grad/norm"] > 0
    assert metrics["supervise/data/num_target_tokens"] == 8 * counts["target_tokens"]


def test_saved_model_is_tied_and_brings_its_tokenizer(base, tmp_path):
    run_sft(sft_job(base, tmp_path), Rank(), in_batches(sft_rows(8)), ignore)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == AutoTokenizer.from_pretrained(base).eos_token
    assert (tmp_path / "model.safetensors").exists()


def test_how_a_batch_is_cut_into_micro_batches_does_not_matter(base, tmp_path):
    batches = in_batches(sft_rows(20))
    losses = []
    for tokens in (1, 40, 10_000):
        job = sft_job(base, tmp_path)
        trainer = job.trainer.model_copy(update={"micro_batch_tokens": tokens})
        job = sft_job(base, tmp_path, trainer)
        losses.append(run_sft(job, Rank(), batches, ignore)["supervise/loss/final"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_rows_are_counted_in_and_out():
    rows = [
        {"input_ids": [1, 2, 3, 4, 5], "prompt_length": 1},
        {"input_ids": [1, 2, 3, 4, 5], "prompt_length": 4},
        {"input_ids": [1, 2], "prompt_length": 0},
        {"input_ids": [1, 2, 3], "prompt_length": 3},
    ]
    kept, counts = learnable_rows(rows, 4)
    assert [(row["input_ids"], row["prompt_length"]) for row in kept] == [([1, 2], 1)]
    assert counts == {"rows": 4, "tokens": 2, "target_tokens": 1, "rows_left_out": 3}
    assert len(learnable_rows(rows, 5)[0]) == 3


def test_empty_shares_are_skipped_and_nothing_to_learn_is_an_error(base, tmp_path):
    rows = sft_rows(4)
    metrics = run_sft(sft_job(base, tmp_path), Rank(), [rows, []], ignore)
    assert metrics["supervise/optimization/num_steps"] == 1
    with pytest.raises(DataError, match=r"rows\.parquet"):
        run_sft(sft_job(base, tmp_path), Rank(), [[]], ignore)
