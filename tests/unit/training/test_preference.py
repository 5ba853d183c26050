"""Preference-model training in one process."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlaif.algorithms.losses import preference_loss
from rlaif.config.trainer import Trainer
from rlaif.errors import DataError
from rlaif.jobs import Rank
from rlaif.training.deepspeed import DeepSpeedModel
from rlaif.training.models import ScalarModel, load_scorer, new_scorer
from rlaif.training.pairs import dialogues, labels, last_tokens, side_loss, split
from rlaif.training.preference import PairFit, run_preference
from tests.unit.training.conftest import in_batches, pair_rows, preference_job


def ignore(metrics):
    pass


@pytest.fixture(scope="module")
def fitted(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("fitted")
    rows = pair_rows(96)
    metrics = run_preference(
        replace(preference_job(base, path), pretraining="votes.parquet"),
        Rank(),
        in_batches(rows[:16]),
        in_batches(rows[:80]) * 3,
        rows[80:],
        ignore,
    )
    return path, rows, metrics


def test_it_learns_what_the_labels_say(fitted):
    _, _, metrics = fitted
    assert metrics["preference/pretraining/first_loss"] == pytest.approx(0.693, abs=0.05)
    assert metrics["preference/fit/num_pairs"] == 240
    assert metrics["preference/heldout/accuracy"] > 0.8
    assert metrics["preference/heldout/num_pairs"] == 16
    gap = metrics["preference/fit/accuracy"] - metrics["preference/heldout/accuracy"]
    assert metrics["preference/gap/accuracy"] == pytest.approx(gap)
    calibration = {f"preference/heldout/{name}" for name in ("ece", "brier", "temperature", "length_correlation")}
    assert calibration <= set(metrics)
    counts = [value for key, value in metrics.items() if key.endswith("_count")]
    assert sum(counts) == 2 * 16  # both ways
    assert {"preference/heldout/accuracy_red_team", "preference/heldout/accuracy_helpful"} <= set(metrics)


def test_stock_classification_gives_the_training_scores_alone_and_padded(base, fitted):
    path, rows, _ = fitted
    job = preference_job(base, path)
    engine = DeepSpeedModel.supervised(load_scorer(str(path), "float32"), job.trainer, Rank(), job.settings.fit)
    ours = PairFit("fit", job, Rank(), engine).score(rows[80:])
    model = AutoModelForSequenceClassification.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert model.config.num_labels == 1 and model.config.pad_token_id != tokenizer.eos_token_id
    with torch.no_grad():
        for row, pair in zip(rows[80:], ours, strict=True):
            batch = tokenizer.pad({"input_ids": [row["input_ids_1"], row["input_ids_2"]]}, return_tensors="pt")
            alone = [model(torch.tensor([row[f"input_ids_{n}"]])).logits.item() for n in (1, 2)]
            assert model(**batch).logits.flatten().tolist() == pytest.approx(alone, abs=1e-4)
            assert [pair.score_1, pair.score_2] == pytest.approx(alone, abs=1e-4)


def test_heldout_loss_is_that_of_the_saved_model(base, fitted):
    path, rows, metrics = fitted
    model = AutoModelForSequenceClassification.from_pretrained(path)
    losses = []
    with torch.no_grad():
        for row in rows[80:]:
            first, second = (model(torch.tensor([row[f"input_ids_{n}"]])).logits.item() for n in (1, 2))
            probs = torch.tensor([row["prob"], 1 - row["prob"]])
            losses.append(-(probs * torch.tensor([first, second]).log_softmax(0)).sum().item())
    assert metrics["preference/heldout/loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_pairs_that_are_too_long_are_left_out_and_counted(base, tmp_path):
    rows = pair_rows(8)
    rows[3]["input_ids_2"] = [9] * 65
    metrics = run_preference(preference_job(base, tmp_path), Rank(), None, [rows], None, ignore)
    assert metrics["preference/fit/num_pairs_left_out"] == 1
    with pytest.raises(DataError, match="max_length=64"):
        run_preference(preference_job(base, tmp_path), Rank(), None, [rows[3:4]], None, ignore)


def fitted_with(micro_batch_tokens: int, base: str, directory, monkeypatch) -> tuple[dict, dict, list[int]]:
    """Metrics, weights and the padded tokens of every forward pass of a fit under this limit."""
    sizes = []
    forward = ScalarModel.forward
    monkeypatch.setattr(
        ScalarModel, "forward", lambda model, ids, at: (sizes.append(ids.numel()), forward(model, ids, at))[1]
    )
    trainer = Trainer(micro_batch_tokens=micro_batch_tokens)
    rows = pair_rows(20)
    job = preference_job(base, directory / str(micro_batch_tokens), trainer)
    metrics = run_preference(job, Rank(), None, in_batches(rows[:16]), rows[16:], ignore)
    return metrics, load_file(directory / str(micro_batch_tokens) / "model.safetensors"), sizes


def test_pairs_that_are_split_are_learned_like_whole_ones(base, tmp_path, monkeypatch):
    whole, weights, sizes = fitted_with(64, base, tmp_path, monkeypatch)
    assert max(sizes) > 20
    for limit in (20, 30):  # all pairs are split, and some
        metrics, found, sizes = fitted_with(limit, base, tmp_path, monkeypatch)
        assert max(sizes) <= limit
        assert metrics == pytest.approx(whole, rel=1e-3, abs=1e-4)
        for name, tensor in weights.items():  # Adam turns near-zero gradients into full steps
            assert torch.allclose(found[name], tensor, atol=2e-3), name


def test_the_gradient_of_a_split_pair_is_that_of_the_whole_one(base):
    model = new_scorer(base, "float32", AutoTokenizer.from_pretrained(base), 0)
    rows = [{**row, "prob": row["prob"] * 0.9} for row in pair_rows(4)]
    gradients = []
    for splits in (False, True):
        model.zero_grad()
        inputs = last_tokens(dialogues(rows), torch.device("cpu"))
        if splits:
            for side in split(rows, model(*inputs), 5.0):
                loss, _ = side_loss([side], model(*last_tokens([side.input_ids], torch.device("cpu"))))
                loss.backward()
        else:
            preference_loss(*model(*inputs).chunk(2), *labels(rows, torch.device("cpu")), 5.0)[0].backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[0].norm()


def test_scores_have_float32_heads_in_bfloat16(base):
    model = new_scorer(base, "bfloat16", AutoTokenizer.from_pretrained(base), 0)
    ids = torch.arange(40).unsqueeze(0)
    scores = model(ids, torch.arange(40))
    hidden = model.classifier.base_model(input_ids=ids).last_hidden_state[0]
    assert hidden.dtype == torch.bfloat16 and scores.dtype == torch.float32
    exact = hidden.double() @ model.classifier.score.weight[0].double()
    assert (scores.double() - exact).abs().max() < 1e-5
    assert (scores.bfloat16().float() != scores).any()
    assert isinstance(model.classifier.score, torch.nn.Linear)
