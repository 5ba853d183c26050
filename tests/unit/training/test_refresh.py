"""The resident preference trainer: what a refresh does to the served model, and that it resumes exactly."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlaif.config.schema import Optimization, PreferenceModel, Refresh
from rlaif.errors import ModelError
from rlaif.jobs import Rank, RefreshJob, RefreshRows
from rlaif.training.models import ScalarModel
from rlaif.training.refresh import RefreshLearner
from rlaif.training.training_sets import write_pair_table
from tests.checkpoints import write_checkpoint
from tests.tiny_models import tensors_of
from tests.unit.training.conftest import TRAINER, pair_rows, pair_table

OPTIMIZATION = Optimization(epochs=2, batch_size=8, learning_rate=3e-3, warmup_steps=0)


@pytest.fixture
def job(scorer, tmp_path) -> RefreshJob:
    write_pair_table(tmp_path / "probes.parquet", pair_table(pair_rows(6)))
    settings = PreferenceModel(max_length=64, fit=OPTIMIZATION, refresh=Refresh(every=1))
    probes = str(tmp_path / "probes.parquet")
    return RefreshJob(model=scorer, unfitted=scorer, probes=probes, settings=settings, trainer=TRAINER, seed=1)


@pytest.fixture
def rows(tmp_path) -> RefreshRows:
    made = pair_rows(64)
    write_pair_table(tmp_path / "fit.parquet", pair_table(made[:48]))
    write_pair_table(tmp_path / "fresh.parquet", pair_table(made[48:]))
    return RefreshRows(fit=str(tmp_path / "fit.parquet"), fresh=str(tmp_path / "fresh.parquet"), heldout=None)


def test_a_refresh_learns_the_labels_and_tells_how_far_its_scores_moved(job, rows):
    learner = RefreshLearner(job, Rank())
    first = learner.learn(rows)
    for _ in range(3):
        last = learner.learn(rows)
    assert (first.version, last.version) == (1, 4)
    assert last.metrics["refresh/fresh/accuracy"] > first.metrics["refresh/fresh/accuracy"]
    assert first.metrics["refresh/fit/num_pairs"] == 2 * 48
    assert first.probe_mean_after != first.probe_mean_before
    probe = learner.weights().header.probe
    assert learner.weights().version == 4 and len(probe.values) == len(probe.token_ids) == 12


def test_a_refresh_owes_nothing_to_the_one_before(job, rows, tmp_path):
    """Otherwise a resumed run would need more from the last refresh than its model."""
    others = str(tmp_path / "others.parquet")
    write_pair_table(tmp_path / "others.parquet", pair_table(pair_rows(100)[64:]))
    learner = RefreshLearner(job, Rank())
    learner.learn(replace(rows, fit=others))
    other = tensors_of(learner.weights())
    learner.learn(rows)
    alone = RefreshLearner(job, Rank())
    alone.learn(rows)
    found, wanted = tensors_of(learner.weights()), tensors_of(alone.weights())
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert not all(np.array_equal(found[name], other[name]) for name in other)


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_refresh_keeps_nothing_of_the_model_before(job, rows, zero_stage):
    def num_models() -> int:
        gc.collect()
        return sum(type(thing) is ScalarModel for thing in gc.get_objects())

    before = num_models()
    learner = RefreshLearner(replace(job, trainer=TRAINER.model_copy(update={"zero_stage": zero_stage})), Rank())
    for _ in range(2):
        learner.learn(rows)
    assert num_models() == before + 1


def test_probe_means_are_those_of_the_stock_model(job, rows, tmp_path):
    learner = RefreshLearner(job, Rank())
    after = learner.learn(rows).probe_mean_after
    learner.save(tmp_path / "saved")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        scores = [model(torch.tensor([r[f"input_ids_{n}"]])).logits.item() for r in pair_rows(6) for n in (1, 2)]
    assert after == pytest.approx(np.mean(scores), abs=1e-4)


def test_resumed_it_goes_on_exactly(job, rows, tmp_path):
    whole = RefreshLearner(job, Rank())
    whole.learn(rows)
    write_checkpoint(whole, tmp_path / "checkpoint")
    resumed = RefreshLearner(replace(job, checkpoint=str(tmp_path / "checkpoint")), Rank())
    ends = [learner.learn(rows) for learner in (whole, resumed)]
    assert ends[0] == ends[1]
    assert ends[1].version == 2
    states = [tensors_of(learner.weights()) for learner in (whole, resumed)]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_half_a_checkpoint_is_named(job, tmp_path):
    with pytest.raises(ModelError, match="is not a whole preference checkpoint"):
        RefreshLearner(replace(job, checkpoint=str(tmp_path)), Rank())
