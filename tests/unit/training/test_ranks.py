"""Two gloo ranks learn what one rank learns, with whole (ZeRO 0) and partitioned (ZeRO 3) parameters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlaif.config.trainer import Trainer
from rlaif.engines.checksums import as_tensor, bit_sum
from rlaif.interfaces import Probe, Refitted, Weights
from rlaif.jobs import PPOJob, Rank, RefreshJob, RefreshRows
from rlaif.training.training_sets import write_pair_table
from tests.checkpoints import write_checkpoint
from tests.tiny_models import tensors_of
from tests.unit.training.conftest import (
    in_batches,
    pair_rows,
    pair_table,
    ppo_job,
    preference_job,
    rollouts,
    sft_job,
    sft_rows,
)
from tests.unit.training.two_ranks import on_two_ranks

BUCKET_BYTES = 2**16


def train_everything(rank: Rank, directory: Path, base: str, scorer: str, zero_stage: int) -> tuple:
    """SFT, PM, refreshes and two PPO batches as one rank, with what each reports."""
    from rlaif.training.ppo import PPOLearner
    from rlaif.training.preference import run_preference
    from rlaif.training.sft import run_sft

    def share(rows):  # the last batch has one row, so the second rank gets none
        return [batch[rank.index :: rank.world_size] for batch in in_batches(rows)]

    trainer = Trainer(zero_stage=zero_stage, micro_batch_tokens=64)
    sft = run_sft(sft_job(base, directory / "sft", trainer), rank, share(sft_rows(17)), lambda metrics: None)
    pairs = pair_rows(25)
    pm = run_preference(
        preference_job(base, directory / "pm", trainer),
        rank,
        share(pairs[:8]),
        share(pairs[:17]),
        pairs[17:],
        lambda metrics: None,
    )
    refitted = refresh_twice(directory, pairs, trainer, rank)
    learner = PPOLearner(ppo_job(base, scorer, trainer, epochs=1), rank)
    learned = [learner.learn(rollouts(13)) for _ in range(2)]
    learner.save(directory / "rl")
    weights = gathered(learner)
    write_checkpoint(learner, directory / "checkpoint")
    learner.close()
    return sft, pm, learned, weights, refitted


def refresh_twice(directory: Path, pairs: list[dict], trainer: Trainer, rank: Rank) -> tuple[list[Refitted], Weights]:
    """The resident preference trainer on the model just fitted; each refresh closes a DeepSpeed engine."""
    from rlaif.training.refresh import RefreshLearner

    path = str(directory / f"pairs-{rank.index}.parquet")
    write_pair_table(Path(path), pair_table(pairs))
    settings = preference_job(str(directory), "").settings
    names = {"model": str(directory / "pm"), "unfitted": str(directory / "pm-unfitted"), "probes": path}
    learner = RefreshLearner(RefreshJob(**names, settings=settings, trainer=trainer, seed=0), rank)
    refitted = [learner.learn(RefreshRows(fit=path, fresh=path, heldout=path)) for _ in range(2)]
    weights = gathered(learner)
    learner.close()
    return refitted, weights


def gathered(learner) -> Weights:
    """In buckets that hold a part of the model, which every rank gathers."""
    from rlaif.training import gathering

    gathering.BUCKET_BYTES = BUCKET_BYTES
    weights = learner.weights()
    return replace(weights, buckets=list(weights.buckets))


@pytest.fixture(scope="module")
def alone(base, scorer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    return directory, train_everything(Rank(), directory, base, scorer, 0)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_two_ranks_equal_one(base, scorer, alone, tmp_path, zero_stage):
    one_rank, expected = alone
    found, _ = on_two_ranks(train_everything, tmp_path, base, scorer, zero_stage)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    for ours, theirs in zip(found[2], expected[2], strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=2e-3, abs=1e-3)
        assert ours.kl == pytest.approx(theirs.kl, abs=1e-3)
        assert ours.advantage_mean == pytest.approx(theirs.advantage_mean, abs=1e-3)
    assert_close(found[3].header.probe, expected[3].header.probe)
    assert_goes_on_alone(ppo_job(base, scorer, epochs=1), tmp_path)
    assert_whole(found[3], load_file(tmp_path / "rl" / "model.safetensors"))
    (refitted, served), (wanted, wanted_served) = found[4], expected[4]
    for ours, theirs in zip(refitted, wanted, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=2e-3, abs=1e-3)
        assert ours.probe_mean_after == pytest.approx(theirs.probe_mean_after, abs=1e-3)
    # Compared by scores: Adam turns near-zero gradients into full steps, so that single weights differ.
    assert_close(served.header.probe, wanted_served.header.probe)
    for name in ("sft", "pm", "rl"):
        ours, theirs = (load_file(path / name / "model.safetensors") for path in (tmp_path, one_rank))
        assert set(ours) == set(theirs)
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], atol=2e-3, err_msg=f"{name}: {key}")


def assert_goes_on_alone(job: PPOJob, directory: Path) -> None:
    """One rank goes on from the checkpoint of two: with the policy that they saved, after as many batches."""
    from rlaif.training.ppo import PPOLearner

    resumed = PPOLearner(replace(job, checkpoint=str(directory / "checkpoint")), Rank())
    resumed.save(directory / "resumed")
    assert [resumed.learn(rollouts(13)).version, resumed.learn([]).version] == [3, 4]
    resumed.close()
    ours, theirs = (load_file(directory / name / "model.safetensors") for name in ("resumed", "rl"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)


def assert_close(probe: Probe, other: Probe) -> None:
    for ours, theirs in zip(probe.values, other.values, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


def assert_whole(weights: Weights, saved: dict[str, np.ndarray]) -> None:
    """What travels is what is saved, in small buckets, with its checksums."""
    assert len(weights.buckets) == weights.header.num_buckets > 3
    sent = tensors_of(weights)
    assert weights.header.shapes == {name: tensor.shape for name, tensor in sent.items()}
    assert sent["lm_head.weight"] is sent["model.embed_tokens.weight"]
    for name, tensor in saved.items():
        np.testing.assert_array_equal(sent[name], tensor, err_msg=name)
    for bucket in weights.buckets:
        arrays = {id(array): array for array in bucket.tensors.values()}
        assert len(arrays) == 1 or sum(array.nbytes for array in arrays.values()) <= BUCKET_BYTES
        assert bucket.checksums == {name: bit_sum(as_tensor(array)) for name, array in bucket.tensors.items()}
