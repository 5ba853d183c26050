"""Which checkpoints are kept, and that none is incomplete."""

import json

import pytest

from rlaif.interfaces import Refitted
from rlaif.stages.reinforcement.checkpoints import Checkpoints, PreferenceCheckpoints


class Learner:
    """What it begins is there once it is finished."""

    def __init__(self):
        self.begun = []

    async def begin_checkpoint(self, path):
        path.mkdir(parents=True)
        self.begun.append(path)

    async def finish_checkpoint(self):
        (self.begun.pop() / "weights").write_text("whole")


async def write(checkpoints, version, score, learner=None):
    learner = learner or Learner()
    await checkpoints.begin(version, learner)
    await checkpoints.finish(version, learner, score)


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
        await write(checkpoints, version, score)
    assert versions(tmp_path) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"policy-{version:08d}" for version in kept]
    assert checkpoints.last().version == kept[-1]
    assert checkpoints.best().score == max(scores)


async def test_a_directory_without_manifest_is_no_checkpoint_and_is_written_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    assert checkpoints.last() is None and checkpoints.best() is None
    await write(checkpoints, 1, 0.5)

    class Fails(Learner):
        async def finish_checkpoint(self):
            (self.begun.pop() / "leftover").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await write(checkpoints, 2, 0.9, Fails())
    assert checkpoints.last().version == checkpoints.best().version == 1
    await write(checkpoints, 2, 0.4)
    assert sorted(path.name for path in checkpoints.last().path.iterdir()) == ["manifest.json", "weights"]


async def test_the_manifest_comes_after_everything_else(tmp_path):
    class Looks(Learner):
        async def finish_checkpoint(self):
            assert not (self.begun[0] / "manifest.json").exists()
            await super().finish_checkpoint()
            assert not list(tmp_path.glob("*/manifest.json"))

    checkpoints = Checkpoints(tmp_path, 2)
    for _ in range(2):  # also when that version exists already
        await write(checkpoints, 7, 0.0, Looks())
        assert versions(tmp_path) == [7]


def refitted(version: int, before: float, after: float) -> Refitted:
    return Refitted(version=version, metrics={}, probe_mean_before=before, probe_mean_after=after)


async def test_scores_are_centred_on_those_of_the_first_model(tmp_path):
    """Probe means 1.0 -> 1.5 -> 0.75: offsets are relative to version 0, not to the previous version."""
    checkpoints = PreferenceCheckpoints(tmp_path)
    assert await checkpoints.write(refitted(1, 1.0, 1.5), Learner()) == 0.5
    assert await checkpoints.write(refitted(2, 1.5, 0.75), Learner()) == -0.25
    assert [checkpoints.latest(most).version for most in (1, 2, 9)] == [1, 2, 2]
    assert checkpoints.latest(0) is None


async def test_a_model_without_its_manifest_does_not_count(tmp_path):
    checkpoints = PreferenceCheckpoints(tmp_path)
    await checkpoints.write(refitted(1, 0.0, 0.0), Learner())
    (tmp_path / "preference-00000002").mkdir()
    (tmp_path / "preference-00000002" / "weights").write_text("whole")
    assert checkpoints.latest(5).version == 1


async def test_the_past_that_a_resumed_run_begins_with_is_kept(tmp_path):
    checkpoints = PreferenceCheckpoints(tmp_path)
    for version in (1, 2, 3, 4):
        await checkpoints.write(refitted(version, 0.0, 0.0), Learner())
    checkpoints.forget_before(3)
    checkpoints.forget_after(3)
    assert [path.name for path in tmp_path.iterdir()] == ["preference-00000003"]
