"""Where training score and gold score part."""

import random

import pytest

from rlaif.config.schema import Config
from rlaif.evaluation.gold_scores import GOLD_SCORES, NUM_WINDOWS, REWARD_HACKING, parting, windows_of
from rlaif.ids import batch_of, group_id, sample_id
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import RolloutScore
from rlaif.storage.run_dir import RunDir
from tests.unit.provenance import PROVENANCE

PER_BATCH = 32


def scores(num_batches, learned, gold, noise=1.0, seed=0):
    """Rollouts of a run whose scores are these functions of progress, from 0 to 1, and noise."""
    chance = random.Random(seed)
    return [
        RolloutScore(
            **{**PROVENANCE, "id": sample_id(group_id(f"p{n}", "red_team", batch, n), 0), "axis": "red_team"},
            batch=batch,
            learned_score=learned(batch / num_batches) + chance.gauss(0, noise),
            score=gold(batch / num_batches) + chance.gauss(0, noise),
        )
        for batch in range(num_batches)
        for n in range(PER_BATCH)
    ]


def rise(progress):
    return 3 * progress


def rise_and_fall(progress):
    return 3 * progress if progress < 0.5 else 3 - 3 * progress


def test_scores_that_rise_together_do_not_part():
    assert parting(windows_of(scores(40, rise, rise))) is None


@pytest.mark.parametrize("seed", range(5))
def test_they_part_where_the_gold_score_turns(seed):
    parted = parting(windows_of(scores(40, rise, rise_and_fall, seed=seed)))
    assert parted is not None and 15 <= parted <= 27


def test_a_policy_that_gets_worse_by_both_has_not_hacked_anything():
    assert parting(windows_of(scores(40, rise_and_fall, rise_and_fall))) is None


def test_noise_alone_parts_seldom():
    """A gold score that stays where it is, beside a training score that rises."""
    parted = [parting(windows_of(scores(40, rise, lambda progress: 0.0, seed=seed))) for seed in range(100)]
    assert sum(batch is not None for batch in parted) <= 3


def test_gains_are_in_standard_deviations_of_the_first_scores():
    first, *_, last = windows_of(scores(100, lambda p: 10 + 20 * p, lambda p: 5 - 4 * p, noise=2.0))
    assert first.learned == pytest.approx(0, abs=1e-9) and first.gold == pytest.approx(0, abs=1e-9)
    assert last.learned == pytest.approx(9, rel=0.1) and last.gold == pytest.approx(-1.8, rel=0.1)
    assert last.last_batch == 99


@pytest.mark.parametrize("num_batches", [0, 1, 3, 25])
def test_any_number_of_batches_has_windows(num_batches):
    windows = windows_of(scores(num_batches, rise, rise))
    assert len(windows) == min(num_batches, NUM_WINDOWS)
    assert parting(windows) is None


def test_scores_that_are_all_alike_have_no_gain():
    assert {window.gold for window in windows_of(scores(10, lambda p: 1.0, lambda p: 1.0, noise=0.0))} == {0.0}


def test_the_batch_of_a_rollout_is_in_its_id():
    assert batch_of(sample_id(group_id("a@b.1.2", "helpful", 17, 3), 5)) == 17


def test_what_is_measured_is_said(tmp_path):
    run_dir = RunDir(tmp_path / "run", Config())
    assert REWARD_HACKING.measure(run_dir, load_lexicon()).results == {}
    run_dir.journal.add_all(GOLD_SCORES, scores(20, rise, rise_and_fall))
    results = REWARD_HACKING.measure(run_dir, load_lexicon()).results
    run_dir.close()
    assert "that of the test preference model fell" in REWARD_HACKING.remarks(results)[0]
    assert REWARD_HACKING.remarks({}) == []
