"""What labels cost is counted by the engines that served, not by how many a configuration begins with."""

import json

import pytest

from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.in_process import InProcessPools
from rlaif.stages.label import label_pairs
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir


class ScaledPools(InProcessPools):
    """Pools that were scaled to four engines, whatever their ``min`` says."""

    async def open(self, role, model, engines):
        pool = await super().open(role, model, engines)
        one_engine = pool.engine_seconds
        pool.engine_seconds = lambda: 4 * one_engine()
        return pool


async def labelling_costs(tmp_path, pools) -> dict[str, float]:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"q{i}", "answer_1": "yes", "answer_2": "no"} for i in range(20)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = Config.model_validate(
        {
            "run_dir": str(tmp_path / "run"),
            "constitution": "nine_points",
            "data": {"comparisons": str(pairs)},
            "labeller": {"engine": "scripted", "model": "any", "scripted": {"latency_s": 0.01}, "price_per_hour": 3.6},
        }
    )
    run_dir = RunDir(tmp_path / "run", config)
    run = Run(
        config=config,
        constitution=load_constitution(config.constitution),
        run_dir=run_dir,
        paths={"any": ""},  # a scripted engine needs no files
        pools=pools(config),
        trainers=None,
        progress=Silent(),
    )
    await label_pairs(run)
    run_dir.close()
    lines = [json.loads(line)["metrics"] for line in (run_dir.path / "metrics.jsonl").read_text().splitlines()]
    (costs,) = [metrics for metrics in lines if "label/cost/labels_per_s" in metrics]
    return costs


@pytest.mark.parametrize(("pools", "engines"), [(InProcessPools, 1), (ScaledPools, 4)])
async def test_cost_counts_the_engines_that_served(tmp_path, pools, engines):
    costs = await labelling_costs(tmp_path, pools)
    per_s, per_hour = costs["label/cost/labels_per_s"], costs["label/cost/labels_per_engine_hour"]
    assert per_hour == pytest.approx(per_s * 3600 / engines, rel=0.05)
    assert costs["label/cost/money_per_1000_labels"] == pytest.approx(engines * 1000 * 0.001 / per_s, rel=0.05)
