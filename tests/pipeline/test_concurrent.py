"""Feedback and reinforcement at the same time: concurrency changes neither rows nor models."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.driver import drive
from actors.work import PIPELINE, pipeline_from
from rlaif.config.schema import Config
from rlaif.stages.reinforcement.preference_versions import version_for
from rlaif.stages.run import Silent
from rlaif.training.scripted import DIGEST

BATCHES, EVERY, COMPARISONS = 8, 2, 6


def changed(config: Config, **sections: dict) -> Config:
    values = config.model_dump()
    for name, fields in sections.items():
        values[name] = values[name] | fields
    return Config.model_validate(values)


def refreshing(config: Config, run_dir: Path, *, max_staleness: int = 0, max_lag: int = 0, **sections: dict) -> Config:
    refresh = {"every": EVERY, "comparisons": COMPARISONS, "max_lag": max_lag, "probes": 4}
    preference_model = config.preference_model.model_dump() | {"refresh": refresh}
    reinforcement = {"batches": BATCHES, "checkpoint_every": 3, "max_staleness": max_staleness}
    made = changed(config, preference_model=preference_model, reinforcement=reinforcement, **sections)
    return made.model_copy(update={"run_dir": str(run_dir)})


@pytest.fixture
def scripted_config(tiny_config) -> Config:
    roles = ("generator", "labeller", "scorer", "policy_trainer", "preference_trainer")
    return changed(tiny_config, **{role: {"engine": "scripted"} for role in roles})


def rollouts(run_dir: Path) -> list[dict]:
    return pq.read_table(run_dir / "rollouts" / "rollouts.parquet").to_pylist()


def batch_of(rollout: dict) -> int:
    return int(rollout["id"].split("@")[1].split(".")[1])


def learned(run_dir: Path) -> dict[str, str]:
    return {m: (run_dir / "models" / m / DIGEST).read_text() for m in ("rl_cai", "preference_model_refreshed")}


async def test_a_refreshed_model_scores_from_its_batch_on(tiny_config, tmp_path):
    run_dir = await drive(refreshing(tiny_config, tmp_path / "run"), Silent(), PIPELINE, in_process=True)
    config = refreshing(tiny_config, tmp_path / "run")
    for row in rollouts(run_dir):
        batch = batch_of(row)
        assert row["preference_model_version"] == version_for(config.preference_model.refresh, batch)
        assert row["policy_version_start"] == batch
    manifest = json.loads((run_dir / "manifest.json").read_text())
    wanted = 3 * COMPARISONS
    assert manifest["rows"]["refresh_comparisons"]["rows_out"] == wanted
    assert manifest["rows"]["refresh_preferences"] == {
        "state": "done",
        "rows_in": wanted,
        "rows_out": wanted,
        "quarantined": 0,
    }
    labels = pq.read_table(run_dir / "preferences" / "refresh.parquet").to_pylist()
    assert len({row["id"] for row in labels}) == wanted
    assert {row["policy_version"] for row in labels} == {2, 4, 6}
    assert list((run_dir / "models" / "preference_model_refreshed").glob("*.safetensors"))


@pytest.mark.parametrize("max_pairs", [None, COMPARISONS + 2])
async def test_a_refresh_is_fitted_on_old_and_fresh_labels(scripted_config, tmp_path, max_pairs):
    config = refreshing(scripted_config, tmp_path / "run")
    refresh = {"refresh": config.preference_model.refresh.model_dump() | {"max_pairs": max_pairs}}
    run_dir = await drive(changed(config, preference_model=refresh), Silent(), PIPELINE, in_process=True)
    sets = run_dir / "training_sets"
    first, fit, fresh = (
        pq.read_table(sets / f"{name}.parquet")["id"].to_pylist()
        for name in ("preference_fit", "refresh_00000003_fit", "refresh_00000003_fresh")
    )
    assert len(set(fit)) == len(fit) and set(fresh) <= set(fit)
    if max_pairs is None:
        assert set(first) <= set(fit)
        assert len(fit) == len(first) + sum(f"@refresh.{version}." in id for id in fit for version in (1, 2, 3))
        assert {version for version in (1, 2, 3) if any(f"@refresh.{version}." in id for id in fit)} == {1, 2, 3}
    else:
        assert len(fit) == max_pairs


async def test_training_sets_that_no_refresh_begins_with_are_dropped(scripted_config, tmp_path):
    config = refreshing(scripted_config, tmp_path / "run")
    often = changed(config, reinforcement={"checkpoint_every": 1})
    run_dir = await drive(often, Silent(), PIPELINE, in_process=True)
    assert [path.name for path in sorted((run_dir / "training_sets").glob("refresh_*_fit.parquet"))] == [
        "refresh_00000002_fit.parquet",
        "refresh_00000003_fit.parquet",
    ]


async def test_what_is_learned_does_not_depend_on_what_is_done_at_once(scripted_config, tmp_path):
    ends = []
    for max_staleness, max_lag in ((0, 0), (3, 0)):
        config = refreshing(
            scripted_config, tmp_path / str(max_staleness), max_staleness=max_staleness, max_lag=max_lag
        )
        run_dir = await drive(config, Silent(), PIPELINE, in_process=True)
        ends.append(learned(run_dir))
        ages = [batch_of(row) - row["policy_version_start"] for row in rollouts(run_dir)]
        assert len(ages) == BATCHES * scripted_config.reinforcement.batch_size
        assert (max(ages) > 0) == (max_staleness > 0), "batches must be sampled ahead if, and only if, they may be"
    assert ends[0] == ends[1]


async def test_a_stage_that_is_run_again_ends_as_it_did(scripted_config, tmp_path):
    config = refreshing(scripted_config, tmp_path / "run")
    run_dir = await drive(config, Silent(), PIPELINE, in_process=True)
    wanted = learned(run_dir), [{**row, "seconds": 0} for row in rollouts(run_dir)]
    counts = json.loads((run_dir / "manifest.json").read_text())["rows"]
    await drive(config, Silent(), pipeline_from("reinforce"), in_process=True)
    assert (learned(run_dir), [{**row, "seconds": 0} for row in rollouts(run_dir)]) == wanted
    assert json.loads((run_dir / "manifest.json").read_text())["rows"] == counts


async def test_a_lag_lets_the_older_model_score_meanwhile(scripted_config, tmp_path):
    config = refreshing(scripted_config, tmp_path / "run", max_staleness=2, max_lag=3)
    run_dir = await drive(config, Silent(), PIPELINE, in_process=True)
    versions = {}
    for row in rollouts(run_dir):
        batch = batch_of(row)
        versions.setdefault(batch, set()).add(row["preference_model_version"])
        assert batch - row["policy_version_start"] <= 2
    assert versions == {0: {0}, 1: {0}, 2: {0}, 3: {0}, 4: {0}, 5: {1}, 6: {1}, 7: {2}}


async def test_a_rollout_that_fails_and_its_group_are_quarantined_and_counted(scripted_config, tmp_path):
    config = changed(
        refreshing(scripted_config, tmp_path / "run"),
        scorer={"scripted": {"failure_rate": 0.2}},
        reinforcement={"algorithm": "rloo", "group_size": 2},
    )
    run_dir = await drive(config, Silent(), PIPELINE, in_process=True)
    counts = json.loads((run_dir / "manifest.json").read_text())["rows"]["rollouts"]
    drawn = BATCHES * config.reinforcement.batch_size
    assert counts["rows_in"] == drawn == counts["rows_out"] + counts["quarantined"]
    quarantined = [json.loads(line) for line in (run_dir / "quarantine.jsonl").read_text().splitlines()]
    causes = {row["id"]: row["cause"] for row in quarantined if row["stage"].startswith("rollouts/")}
    kept = {row["id"] for row in rollouts(run_dir)}
    assert len(causes) == counts["quarantined"] > 0
    assert not kept & causes.keys()
    for id, cause in causes.items():
        group, member = id.split("#")
        other = f"{group}#{1 - int(member)}"
        assert cause == "another sample of its group failed" or "scripted failure" in cause
        assert "scripted failure" in cause + causes[other], "a group without a failure was left out"
