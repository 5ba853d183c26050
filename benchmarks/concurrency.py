"""What does concurrency gain? Reinforcement with labelling and refreshes, one after another and all at the same time.

    python -m benchmarks.concurrency --json FILE

Loops, Ray pools and Ray Train ranks are real; engines and trainers are scripted. Each of the five roles has a fixed
time per row, chosen so that the roles' times for one batch (``role_s``) are within 20% of each other. Every batch has a
refresh. *Sequential*: no staleness and no lag, so the roles take turns. *Concurrent*: the same code with
``max_staleness`` and ``max_lag`` large enough that every role always has work. Both learn from the same rollouts.

``bound_s`` is the busiest role's configured time per row times its number of rows: no run can be faster. A run without
lag has a few more refreshes, because even the last ones still score a batch; ``runs`` has each run's own bound, and
``bound_s`` is the concurrent one's. Times cover the loops only, not the start of the actors.
Goals: concurrent within 10% of the bound, sequential at least 2.5 times it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.driver import drive
from actors.work import one_stage
from benchmarks.branches import BEFORE, branch
from benchmarks.machine import publish
from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.stages.reinforcement.preference_versions import num_refreshes
from rlaif.stages.run import Silent

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
POOLS, TRAINERS = ("generator", "labeller", "scorer"), ("policy_trainer", "preference_trainer")
NUM_PROMPTS, BATCH, COMPARISONS = 256, 32, 16
#: Rows that each role serves for one batch and one refresh; a comparison has two answers, a label two orders.
ROWS = {
    "generator": BATCH + 2 * COMPARISONS,
    "scorer": BATCH,
    "labeller": 2 * COMPARISONS,
    "policy_trainer": BATCH,
    "preference_trainer": 2 * COMPARISONS,  # as many old pairs as fresh ones, by ``max_pairs``
}
WAYS = {"sequential": (0, 0), "concurrent": (4, 6)}  #: max_staleness, max_lag


def settings(directory: Path, role_s: dict[str, float], batches: int, way: str) -> list[str]:
    max_staleness, max_lag = WAYS[way]
    overrides = [
        f"run_dir={directory / way}",
        f"data.red_team={directory / 'red_team.jsonl'}",
        f"data.helpful={directory / 'red_team.jsonl'}",
        "data.votes=null",
        f"reinforcement.batches={batches}",
        f"reinforcement.batch_size={BATCH}",
        f"reinforcement.minibatch_size={BATCH}",
        "reinforcement.checkpoint_every=1000000",
        f"reinforcement.max_staleness={max_staleness}",
        "preference_model.refresh.every=1",
        f"preference_model.refresh.comparisons={COMPARISONS}",
        f"preference_model.refresh.max_pairs={ROWS['preference_trainer']}",
        f"preference_model.refresh.max_lag={max_lag}",
        "labelling.aggregation=prob_mean",
        "sampling.max_tokens=8",
        "resources.cpus=8",
    ]
    for role in (*POOLS, *TRAINERS):
        overrides.append(f"{role}.engine=scripted")
    for role in POOLS:
        overrides += [f"{role}.scripted.latency_s={role_s[role] / ROWS[role]}", f"{role}.scripted.concurrency=1"]
        overrides += [f"{role}.chunk_rows=8", f"{role}.max_in_flight=32"]
    return overrides + [f"{role}.scripted.row_s={role_s[role] / ROWS[role]}" for role in TRAINERS]


def prepare(directory: Path, batches: int) -> Path:
    """Run everything before reinforcement, in this process and with no service times."""
    prompts = [json.dumps({"prompt": f"Question {i}?"}) for i in range(NUM_PROMPTS)]
    (directory / "red_team.jsonl").write_text("\n".join(prompts) + "\n")
    no_time = dict.fromkeys(ROWS, 0.0)
    base = directory / "base"
    config = load_config(QUICKSTART, [*settings(directory, no_time, batches, "sequential"), f"run_dir={base}"])
    for stage in BEFORE:
        asyncio.run(drive(config, Silent(), one_stage(stage), in_process=True))
    return base


def loops_s(run_dir: Path) -> float:
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    times = {event["event"]: event["time"] for event in events}
    return times["loops_finished"] - times["loops_started"]


def bounds(config: Config, role_s: dict[str, float]) -> dict[str, float]:
    """Each role's service time for all rows of a run, with one actor."""
    batches = config.reinforcement.batches
    refreshes = num_refreshes(config.reinforcement, config.preference_model.refresh)
    each = {role: seconds / ROWS[role] for role, seconds in role_s.items()}
    return {
        "generator": each["generator"] * (batches * BATCH + refreshes * 2 * COMPARISONS),
        "scorer": each["scorer"] * batches * BATCH,
        "labeller": each["labeller"] * refreshes * 2 * COMPARISONS,
        "policy_trainer": each["policy_trainer"] * batches * BATCH,
        "preference_trainer": each["preference_trainer"] * refreshes * 2 * COMPARISONS,
    }


def run_way(way: str, base: Path, directory: Path, role_s: dict[str, float], batches: int) -> dict[str, Any]:
    config = load_config(QUICKSTART, settings(directory, role_s, batches, way))
    branch(base, directory / way, config)
    asyncio.run(drive(config, Silent(), one_stage("reinforce"), in_process=False))
    seconds, bound = loops_s(directory / way), bounds(config, role_s)
    rows = json.loads((directory / way / "manifest.json").read_text())["rows"]
    return {
        "seconds": round(seconds, 2),
        "bound_s": round(max(bound.values()), 2),
        "ratio": round(seconds / max(bound.values()), 3),
        "bound_s_by_role": {role: round(value, 2) for role, value in bound.items()},
        "rollouts": rows["rollouts"]["rows_out"],
        "labels": rows["refresh_preferences"]["rows_out"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--batch-s", type=float, default=1.0, help="the busiest role's seconds for one batch")
    parsed = parser.parse_args(arguments)
    role_s = {role: parsed.batch_s * (1.0 if role == "generator" else 0.85) for role in ROWS}
    with tempfile.TemporaryDirectory() as temporary:
        base = prepare(Path(temporary), parsed.batches)
        runs = {way: run_way(way, base, Path(temporary), role_s, parsed.batches) for way in reversed(WAYS)}
    result = {
        "sequential_s": runs["sequential"]["seconds"],
        "concurrent_s": runs["concurrent"]["seconds"],
        "bound_s": runs["concurrent"]["bound_s"],
        "concurrent_to_bound": runs["concurrent"]["ratio"],
        "sequential_to_bound": runs["sequential"]["ratio"],
        "batches": parsed.batches,
        "role_s": role_s,
        "runs": runs,
    }
    publish(result, parsed.json)


if __name__ == "__main__":
    main()
