"""Loading, heads, padding tokens, and log-probabilities compared with stock forward passes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif.errors import ModelError
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.training.batches import pad_right, spans
from rlaif.training.models import load_policy, load_scorer, new_scorer, verify


@torch.no_grad()
def test_padded_log_probabilities_are_those_of_each_row_alone(base):
    rows, starts = [[5, 6, 7, 8, 9], [200, 3], [9, 9, 9]], [1, 0, 1]
    ids = pad_right(rows, pad_id=0)
    positions = spans(starts, [len(row) - 1 for row in rows], ids.shape[1])
    targets = torch.from_numpy(ids.reshape(-1)[positions + 1])
    found, entropy = load_policy(base, "float32")(
        torch.from_numpy(ids), torch.from_numpy(positions), targets, temperature=0.7, with_entropy=True
    )
    stock = AutoModelForCausalLM.from_pretrained(base)
    expected, spread = [], []
    for row, start in zip(rows, starts, strict=True):
        logprobs = (stock(torch.tensor([row])).logits[0] / 0.7).log_softmax(-1)
        expected += [logprobs[t, row[t + 1]].item() for t in range(start, len(row) - 1)]
        spread += [-(logprobs[t].exp() * logprobs[t]).sum().item() for t in range(start, len(row) - 1)]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert entropy.tolist() == pytest.approx(spread, abs=1e-4)


def test_a_model_that_changes_its_logits_is_refused(base):
    model = load_policy(base, "float32")
    verify(model, base)
    head = model.language_model.get_output_embeddings()
    model.language_model.get_output_embeddings = lambda: lambda hidden: 2 * head(hidden)
    with pytest.raises(ModelError, match="plain output head"):
        verify(model, base)


def test_new_head_is_small_not_zero_and_the_same_on_every_rank(base):
    heads = [new_scorer(base, "float32", load_tokenizer(base), seed).classifier.score.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert heads[0].std().item() == pytest.approx(1 / 65, rel=0.3)


@pytest.mark.parametrize("unk", [None, "!"])
def test_padding_that_is_the_eos_is_replaced(base, tmp_path, unk):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.unk_token = unk
    model = new_scorer(base, "float32", tokenizer, 0)
    config = model.classifier.config
    assert config.pad_token_id == tokenizer.pad_token_id != config.eos_token_id == tokenizer.eos_token_id
    assert config.pad_token_id < model.classifier.get_input_embeddings().num_embeddings == config.vocab_size
    assert tokenizer.pad_token == (unk or "<|pad|>")


def test_what_is_not_a_model_or_not_a_preference_model_is_named(base, tmp_path):
    with pytest.raises(ModelError, match="not a preference model"):
        load_scorer(base, "float32")
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_scorer(str(tmp_path), "float32")
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_policy(str(tmp_path), "float32")
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path))
