"""Which checkpoints are kept, and that none is incomplete."""

import json

import pytest

from rlaif.interfaces import Refitted
from rlaif.stages.reinforcement.checkpoints import Checkpoints, PreferenceCheckpoints


async def save(path):
    path.mkdir(parents=True)
    (path / "weights").write_text("whole")


def versions(directory) -> list[int]:
    return sorted(json.loads(path.read_text())["version"] for path in directory.glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("scores", "keep", "kept"),
    [
        ([0.1, 0.2, 0.3, 0.4], 2, [3, 4]),  # the best is one of the last
        ([0.1, 0.9, 0.3, 0.4, 0.2], 2, [2, 4, 5]),
        ([0.9, 0.1, 0.9, 0.4, 0.2], 1, [3, 5]),  # of equal scores, the later
        ([0.5], 3, [1]),
    ],
)
async def test_the_last_ones_and_the_best_are_kept(tmp_path, scores, keep, kept):
    checkpoints = Checkpoints(tmp_path, keep)
    for version, score in enumerate(scores, 1):
        await checkpoints.write(version, save, score)
    assert versions(tmp_path) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"policy-{version:08d}" for version in kept]
    assert checkpoints.last().version == kept[-1]
    assert checkpoints.best().score == max(scores)


async def test_a_directory_without_manifest_is_no_checkpoint_and_is_written_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    assert checkpoints.last() is None and checkpoints.best() is None
    await checkpoints.write(1, save, 0.5)

    async def fails(path):
        await save(path)
        (path / "leftover").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await checkpoints.write(2, fails, 0.9)
    assert checkpoints.last().version == checkpoints.best().version == 1
    await checkpoints.write(2, save, 0.4)
    assert sorted(path.name for path in checkpoints.last().path.iterdir()) == ["manifest.json", "weights"]


async def test_the_manifest_comes_after_everything_else(tmp_path):
    async def looks(path):
        await save(path)
        assert not (path / "manifest.json").exists()

    checkpoints = Checkpoints(tmp_path, 2)
    for _ in range(2):  # also when that version exists already
        await checkpoints.write(7, looks, 0.0)


def refitted(version: int, before: float, after: float) -> Refitted:
    return Refitted(version=version, metrics={}, probe_mean_before=before, probe_mean_after=after)


async def test_scores_are_centred_on_those_of_the_first_model(tmp_path):
    """Probe means 1.0 -> 1.5 -> 0.75: offsets are relative to version 0, not to the previous version."""
    checkpoints = PreferenceCheckpoints(tmp_path)
    assert await checkpoints.write(refitted(1, 1.0, 1.5), save) == 0.5
    assert await checkpoints.write(refitted(2, 1.5, 0.75), save) == -0.25
    assert [checkpoints.latest(most).version for most in (1, 2, 9)] == [1, 2, 2]
    assert checkpoints.latest(0) is None


async def test_a_model_without_its_manifest_does_not_count(tmp_path):
    checkpoints = PreferenceCheckpoints(tmp_path)
    await checkpoints.write(refitted(1, 0.0, 0.0), save)
    await save(tmp_path / "preference-00000002")
    assert checkpoints.latest(5).version == 1


async def test_the_past_that_a_resumed_run_begins_with_is_kept(tmp_path):
    checkpoints = PreferenceCheckpoints(tmp_path)
    for version in (1, 2, 3, 4):
        await checkpoints.write(refitted(version, 0.0, 0.0), save)
    checkpoints.forget_before(3)
    checkpoints.forget_after(3)
    assert [path.name for path in tmp_path.iterdir()] == ["preference-00000003"]
