from rlaif.interfaces import Refitted
from rlaif.stages.checkpoints import PreferenceCheckpoints


def refitted(version: int, before: float, after: float) -> Refitted:
    return Refitted(version=version, metrics={}, probe_mean_before=before, probe_mean_after=after)


async def save(path) -> None:
    path.mkdir(parents=True)
    (path / "model").write_text(path.name)


async def test_scores_are_centred_on_those_of_the_first_model(tmp_path):
    """Probe means 1.0 -> 1.5 -> 0.75: offsets are against version 0, not against the one before."""
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
