"""A run under fire: every 20 seconds a random actor gets SIGKILL while the miniature's loops run concurrently.

    python -m benchmarks.chaos --calm benchmarks/results/refresh_80_batches.json --json benchmarks/results/chaos.json

Real vLLM engines, DeepSpeed ranks and Ray; roles that were killed least are killed first. ``kills`` has for each how
long it took until another process stood in the victim's place: for an engine that it serves (weights caught up), for a
trainer's rank that its group has started again. ``counts`` are the manifest's: rows in = rows out + quarantined;
``doubled`` ids must be none. ``harmful`` is RL-CAI's truth-measured harm beside the 95% interval (Student's t) of calm
concurrent runs of as many batches, ``benchmarks.refresh --ways concurrent reinforcement.batches=80
"labelling.gate.override=[flip_rate]"``. Goals: 15 kills, 3 of each role, harm within the interval.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.branches import branch
from benchmarks.intervals import paired_interval
from benchmarks.machine import publish
from rlaif.config.files import load_config

CONCURRENT = Path(__file__).parents[1] / "configs" / "concurrent.yaml"
#: What the resident trainers' Ray Train runs are called, by role.
FITS = {"reinforce": "policy_trainer", "refresh": "preference_trainer"}
ROLES = {"generator", "labeller", "scorer", *FITS.values()}
SETTINGS = (
    "policy_trainer.max_failures=50",
    "preference_trainer.max_failures=50",
    # The planted bias flips answers that have become alike: seen to end calm runs of this length, too (see the README).
    "labelling.gate.override=[flip_rate]",
    "reinforcement.batches=80",  # fewer end before 15 kills
    "reinforcement.checkpoint_every=4",  # a lost rank learns again what came after the last checkpoint
)
LOOK_S = 0.5
ANSWER_S = 20.0


class Watch:
    """Where a run's actors are, asked of its control actor from another process."""

    def __init__(self, run_dir: Path) -> None:
        from actors.cluster.announcement import find_run

        run = find_run(run_dir)
        if run.auth_mode is not None:  # read when Ray is imported
            os.environ["RAY_AUTH_MODE"] = run.auth_mode
        import ray

        from actors.cluster.start import joined

        self._ray = ray
        self._session = joined(run_dir, run)
        self._session.__enter__()
        self._control = ray.get_actor(run.control)

    def actors(self) -> dict[tuple[str, str], int]:
        """Pid by role and name."""
        answer = self._ray.get(self._control.ask.remote(None), timeout=ANSWER_S)
        found = {(role, name): w.pid for role, pool in answer.pools.items() for name, w in pool.where.items()}
        for fit in FITS.keys() & answer.ranks.keys():
            ranks = answer.ranks[fit]
            found |= {(FITS[fit], f"{fit} rank {rank}"): where.pid for rank, where in ranks.items()}
        return found

    def close(self) -> None:
        self._session.__exit__(None, None, None)


def join(run_dir: Path, process: subprocess.Popen) -> Watch:
    """As soon as the run can be found."""
    while process.poll() is None:
        try:
            return Watch(run_dir)
        except Exception:
            time.sleep(LOOK_S)
    raise SystemExit(f"the run ended with {process.returncode} before it could be joined")


def kills(
    watch: Watch, process: subprocess.Popen, every_s: float, most: int, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """Kill ``most`` times, or until the run ends; each kill with the time until its victim was replaced. When that
    takes longer than ``every_s``, the next one waits for it: two actors of a role may not be told apart before."""
    done: Counter[str] = Counter()
    due = time.monotonic() + every_s
    while process.poll() is None and done.total() < most:
        time.sleep(LOOK_S)
        if time.monotonic() < due or not (found := all_roles(watch)):
            continue
        least = min(done[role] for role, _ in found)
        role, name = chance.choice(sorted(key for key in found if done[key[0]] == least))
        pid, before = found[role, name], sum(key[0] == role for key in found)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself
            continue
        due = time.monotonic() + every_s
        done[role] += 1
        yield {"role": role, "actor": name, "recovered_s": recovery_s(watch, process, role, pid, before)}


def all_roles(watch: Watch) -> dict[tuple[str, str], int]:
    """Pids as ``Watch.actors``; none while a role is missing: a step with few actors would only be begun again."""
    try:
        found = watch.actors()
    except Exception:  # the run ends, or its driver is busy
        return {}
    return found if {role for role, _ in found} == ROLES else {}


def recovery_s(watch: Watch, process: subprocess.Popen, role: str, pid: int, wanted: int) -> float | None:
    """Until as many of ``role`` are there as before, without the victim; None when the role was done first."""
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < 300:
        try:
            pids = [other for (its_role, _), other in watch.actors().items() if its_role == role]
        except Exception:
            pids = []
        if pid not in pids and len(pids) >= wanted:
            return round(time.monotonic() - started, 1)
        time.sleep(LOOK_S)
    return None


def doubled(run_dir: Path) -> dict[str, int]:
    """Ids that a table holds more than once, by table."""
    found = {}
    for path in sorted(run_dir.glob("*/*.parquet")):
        if path.parent.name in ("revisions", "comparisons", "preferences", "rollouts"):
            ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
            found[str(path.relative_to(run_dir))] = len(ids) - len(set(ids))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--calm", type=Path, help="the result of benchmarks.refresh")
    parser.add_argument("--from", type=Path, dest="base", help="a finished run to branch off before reinforcement")
    parser.add_argument("--every-s", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=30, help="at most: on a slow machine a run under fire hardly ends")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--keep", type=Path, help="a new directory for the run, to look into it afterwards")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run_dir, started = arguments.keep or Path(temporary) / "run", time.monotonic()
        settings = [f"run_dir={run_dir}", *SETTINGS, *arguments.overrides]
        if arguments.base:
            branch(arguments.base, run_dir, load_config(CONCURRENT, settings))
        process = subprocess.Popen([sys.executable, "-m", "actors.cli", "run", str(CONCURRENT), *settings])
        watch = join(run_dir, process)
        done = []
        chance = random.Random(arguments.seed)
        for kill in kills(watch, process, arguments.every_s, arguments.kills, chance):
            print(kill, flush=True)
            done.append(kill)
        watch.close()
        result = {"exit_code": process.wait(), "seconds": round(time.monotonic() - started, 1), **summary(done)}
        if process.returncode == 0:
            result |= outcome(run_dir, arguments.calm)
    publish(result, arguments.json)


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    by_role: dict[str, list[float]] = {}
    for kill in done:
        by_role.setdefault(kill["role"], []).append(kill["recovered_s"])
    times = sorted(kill["recovered_s"] for kill in done if kill["recovered_s"] is not None)
    return {
        "num_kills": len(done),
        "kills_by_role": {role: len(found) for role, found in sorted(by_role.items())},
        "median_recovery_s": times[len(times) // 2] if times else None,
        "kills": done,
    }


def outcome(run_dir: Path, calm: Path | None) -> dict[str, Any]:
    stages = json.loads((run_dir / "manifest.json").read_text())["stages"]
    harmful = json.loads((run_dir / "evaluation.json").read_text())["answers"]["red_team"]["rl_cai"]["harmful"]
    found: dict[str, Any] = {
        "counts": stages,
        "counts_exact": all(c["rows_in"] == c["rows_out"] + c["quarantined"] for c in stages.values()),
        "doubled": doubled(run_dir),
        "harmful": harmful,
    }
    if calm is not None:
        runs = json.loads(calm.read_text())["runs"]["concurrent"]
        interval = paired_interval([run["harmful"] for run in runs.values()])
        found |= {"calm": interval, "within_calm_interval": interval["low"] <= harmful <= interval["high"]}
    return found


if __name__ == "__main__":
    main()
