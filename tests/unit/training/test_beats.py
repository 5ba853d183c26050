"""A rank says that it gets on while it works: no order is silent for as long as it lasts."""

from rlaif.config.schema import Optimization, PreferenceModel
from rlaif.jobs import Rank, RefreshJob, RefreshRows
from rlaif.training.ppo import PPOLearner
from rlaif.training.refresh import RefreshLearner
from rlaif.training.sft import run_sft
from rlaif.training.training_sets import write_pair_table
from tests.tiny_models import tensors_of
from tests.unit.training.conftest import (
    TRAINER,
    in_batches,
    pair_rows,
    pair_table,
    ppo_job,
    rollouts,
    sft_job,
    sft_rows,
)

ONE_ROW_A_PASS = TRAINER.model_copy(update={"micro_batch_tokens": 1})


class Counter:
    beats = 0

    def __call__(self):
        self.beats += 1


def test_a_fit_beats_in_each_pass(base, tmp_path):
    count = Counter()
    rows = sft_rows(8)
    run_sft(sft_job(base, tmp_path, ONE_ROW_A_PASS), Rank(beat=count), in_batches(rows), lambda metrics: None)
    assert count.beats >= len(rows)


def test_a_refresh_beats_in_each_pass_and_for_each_tensor_of_its_weights(scorer, tmp_path):
    write_pair_table(tmp_path / "probes.parquet", pair_table(pair_rows(2)))
    write_pair_table(tmp_path / "fit.parquet", pair_table(pair_rows(12)))
    fit, count = Optimization(epochs=2, batch_size=4), Counter()
    learner = RefreshLearner(
        RefreshJob(
            model=scorer,
            unfitted=scorer,
            probes=str(tmp_path / "probes.parquet"),
            settings=PreferenceModel(max_length=64, fit=fit),
            trainer=ONE_ROW_A_PASS,
            seed=1,
        ),
        Rank(beat=count),
    )
    path = str(tmp_path / "fit.parquet")
    learner.learn(RefreshRows(fit=path, fresh=path, heldout=None))
    assert count.beats >= 2 * 12 + 12, "two epochs, and the scores of the fresh pairs before them"
    before = count.beats
    tensors = tensors_of(learner.weights())
    assert count.beats >= before + len(tensors)


def test_a_batch_of_rollouts_beats_in_each_pass(base, scorer):
    count, samples = Counter(), rollouts(8)
    learner = PPOLearner(ppo_job(base, scorer, ONE_ROW_A_PASS, epochs=1), Rank(beat=count))
    learner.learn(samples)
    assert count.beats >= 3 * len(samples), "the forward passes, and the steps of policy and value function"
