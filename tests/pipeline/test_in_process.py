"""The whole method in one process: the same stages as on a cluster, with random tiny models."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.driver import drive
from actors.work import PIPELINE, one_stage
from rlaif.errors import StorageError, UserError
from rlaif.evaluation.answers import AXIS_TITLES
from rlaif.evaluation.findings import Findings
from rlaif.evaluation.preference_scores import SCORED_BY
from rlaif.stages.pipeline import STAGES, story
from rlaif.stages.run import Silent
from tests.conftest import NUM_RED_TEAM

BROKEN = 1  #: of the red-team rows


async def test_the_whole_method_accounts_for_every_row(tiny_config):
    run_dir = await drive(tiny_config, Silent(), PIPELINE, in_process=True)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    for rows, counts in manifest["rows"].items():
        assert counts["rows_in"] == counts["rows_out"] + counts["quarantined"], rows
    assert manifest["rows"]["prompts_red_team"] == {
        "state": "done",
        "rows_in": NUM_RED_TEAM + BROKEN,
        "rows_out": NUM_RED_TEAM,
        "quarantined": BROKEN,
    }
    assert set(manifest["stages"]) == set(STAGES)
    quarantine = [json.loads(line) for line in (run_dir / "quarantine.jsonl").read_text().splitlines()]
    (bad,) = [row for row in quarantine if row["stage"] == "prompts_red_team"]
    assert "prompt" in bad["cause"] and bad["row"] == NUM_RED_TEAM + 1
    for name in ("revisions", "comparisons", "preferences", "rollouts"):
        table = pq.read_table(run_dir / name / f"{name}.parquet")
        ids = table["id"].to_pylist()
        assert len(ids) == len(set(ids)) == manifest["rows"][name]["rows_out"]
    for model in ("sl_cai", "preference_model", "rl_cai"):
        assert list((run_dir / "models" / model).glob("*.safetensors"))
    assert (run_dir / "report.html").stat().st_size > 1000
    assert json.loads((run_dir / "evaluation.json").read_text())["counts"]["answers_without_truth"] == 3 * 24


async def test_a_finished_run_is_not_run_again(tiny_config):
    run_dir = await drive(tiny_config, Silent(), one_stage("read"), in_process=True)
    events = (run_dir / "events.jsonl").read_text()
    await drive(tiny_config, Silent(), one_stage("read"), in_process=True)
    assert (run_dir / "events.jsonl").read_text() == events


async def test_a_test_split_fits_two_models_on_disjoint_pairs_and_asks_both_in_the_evaluation(tiny_config):
    settings = tiny_config.preference_model.model_copy(update={"test_split": True})
    config = tiny_config.model_copy(update={"preference_model": settings})
    run_dir = await drive(config, Silent(), PIPELINE, in_process=True)
    for model in ("preference_model", "preference_model_test"):
        assert list((run_dir / "models" / model).glob("*.safetensors"))
    metrics, ids = Findings(run_dir).last(), {}
    for name, part in (("preference", "fit"), ("preference_test", "test_fit")):
        ids[part] = set(pq.read_table(run_dir / "training_sets" / f"preference_{part}.parquet")["id"].to_pylist())
        assert metrics[f"{name}/fit/num_pairs"] == len(ids[part]) > 0
    assert not ids["fit"] & ids["test_fit"]
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    scores, report = evaluation["preference_scores"], (run_dir / "report.html").read_text()
    assert scores["preference_model"] != scores["preference_model_test"]
    for model, title in SCORED_BY.items():
        for axis, by_snapshot in scores[model].items():
            gain = evaluation["preference_gains"][model][axis]
            assert (gain > 0) == (by_snapshot["rl_cai"] > by_snapshot["sl_cai"])
            assert f"{AXIS_TITLES[axis]}, by {title}" in report


async def test_a_stage_needs_the_ones_before_it(tiny_config):
    stages = story(tiny_config)
    before = stages[stages.index("label") - 1]
    with pytest.raises(UserError, match=f"{before} is not done"):
        await drive(tiny_config, Silent(), one_stage("label"), in_process=True)


async def test_a_direct_reward_needs_no_preference_model(tiny_config):
    values = tiny_config.model_dump()
    values["reinforcement"] |= {"reward": "direct", "batches": 1}
    run_dir = await drive(type(tiny_config).model_validate(values), Silent(), PIPELINE, in_process=True)
    assert not (run_dir / "models" / "preference_model").exists()
    scores = pq.read_table(run_dir / "rollouts" / "rollouts.parquet")["score"].to_pylist()
    assert len(scores) == 8 and all(-1 <= score <= 1 for score in scores)


async def test_the_helpful_only_model_may_be_the_labeller(tiny_config):
    """As in the paper, reasoning step by step; its weights are the same at the end, although the generator's change."""
    values = tiny_config.model_dump()
    values["labeller"]["model"] = values["generator"]["model"]
    values["labelling"]["reasoning"] |= {"mode": "greedy", "max_tokens": 8}
    values["reinforcement"] |= {"reward": "direct", "batches": 2}
    run_dir = await drive(type(tiny_config).model_validate(values), Silent(), PIPELINE, in_process=True)
    labels = pq.read_table(run_dir / "preferences" / "preferences.parquet").to_pylist()
    (judge,) = {label["model_version"] for label in labels}
    assert judge.startswith(f"{Path(tiny_config.generator.model).name}@") and len(labels) == NUM_RED_TEAM


async def test_a_constitution_to_revise_by_is_needed_before_anything_starts(tiny_config, tmp_path):
    constitution = tmp_path / "labels_only.yaml"
    constitution.write_text(
        "name: x\nversion: '1'\nprinciples:\n  - {id: one, category: honesty, source: ours, comparison: Truer}\n"
    )
    config = tiny_config.model_copy(update={"constitution": str(constitution)})
    with pytest.raises(UserError, match="no principle with critique_request and revision_request"):
        await drive(config, Silent(), PIPELINE, in_process=True)


async def test_a_full_disk_ends_a_run_with_one_clear_error_and_loses_nothing(tiny_config, tmp_path):
    config = tiny_config.model_copy(update={"run_dir": str(tmp_path / "full")})
    dataset = tmp_path / "full" / "training_sets" / ".supervision.parquet.unfinished"
    dataset.parent.mkdir(parents=True)
    dataset.symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"full: the disk is full; free some of it and run the same command again"):
        await drive(config, Silent(), PIPELINE, in_process=True)
    dataset.unlink()
    await drive(config, Silent(), PIPELINE, in_process=True)
    counts = json.loads((tmp_path / "full" / "manifest.json").read_text())["rows"]
    assert all(rows["rows_in"] == rows["rows_out"] + rows["quarantined"] for rows in counts.values())
