"""A run under fire: every 20 seconds a random actor gets SIGKILL while the miniature's loops run concurrently.

    python -m benchmarks.chaos --calm benchmarks/results/refresh_80_batches.json --json benchmarks/results/chaos.json

Engines are real vLLM, ranks real DeepSpeed, the cluster real Ray. Each victim is drawn from the roles killed least
often so far. ``kills`` reports for each how long it took to replace the victim: for an engine, until the new one serves
(its weights have caught up); for a trainer's rank, until its group has restarted. ``counts`` are the manifest's: rows
in = rows out + quarantined; ``doubled`` counts repeated ids and must be zero everywhere. ``harmful`` is RL-CAI's harm
rate by the miniature's truth; ``calm`` is the 95% interval (Student's t) of undisturbed concurrent runs with the same
number of batches: ``benchmarks.refresh --ways concurrent reinforcement.batches=80
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
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.branches import branch
from benchmarks.intervals import paired_interval
from benchmarks.machine import publish
from rlaif.config.files import load_config

CONCURRENT = Path(__file__).parents[1] / "configs" / "concurrent.yaml"
#: Name of each resident trainer's Ray Train run -> role.
FITS = {"reinforce": "policy_trainer", "refresh": "preference_trainer"}
ROLES = {"generator", "labeller", "scorer", *FITS.values()}
SETTINGS = (
    "policy_trainer.max_failures=50",
    "preference_trainer.max_failures=50",
    # As answers grow alike, the planted bias flips more labels, until this gate stops even undisturbed runs of this
    # length (see docs/decisions.md).
    "labelling.gate.override=[flip_rate]",
    "reinforcement.batches=80",  # shorter runs end before 15 kills
    "reinforcement.checkpoint_every=4",  # a restarted rank relearns what came after the last checkpoint
)
LOOK_S = 0.5
ANSWER_S = 20.0


class Watch:
    """Asks a run's driver, from another process, where the run's actors are."""

    def __init__(self, run_dir: Path) -> None:
        from actors.cluster.announcement import find_run

        run = find_run(run_dir)
        run.prepare_to_ask()
        from actors.control import PoolOrder, ask_driver

        self._ask = partial(ask_driver, run_dir, run, PoolOrder(), ANSWER_S, "its driver to say where its actors are")

    def actors(self) -> dict[tuple[str, str], int]:
        """Pid by role and name."""
        answer = self._ask()
        pids = {(role, name): w.pid for role, pool in answer.pools.items() for name, w in pool.where.items()}
        for fit in FITS.keys() & answer.ranks.keys():
            ranks = answer.ranks[fit]
            pids |= {(FITS[fit], f"{fit} rank {rank}"): where.pid for rank, where in ranks.items()}
        return pids


def join(run_dir: Path, process: subprocess.Popen) -> Watch:
    """A ``Watch`` of the run, as soon as the run can be found."""
    while process.poll() is None:
        try:
            return Watch(run_dir)
        except Exception:
            time.sleep(LOOK_S)
    raise SystemExit(f"the run ended with {process.returncode} before it could be joined")


def kills(
    watch: Watch, process: subprocess.Popen, every_s: float, most: int, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """Kill ``most`` times, or until the run ends; yields each kill with the time until its victim was replaced. If that
    takes longer than ``every_s``, the next kill waits: until then two actors of a role may be indistinguishable."""
    counts: Counter[str] = Counter()
    due = time.monotonic() + every_s
    while process.poll() is None and counts.total() < most:
        time.sleep(LOOK_S)
        if time.monotonic() < due or not (pids := all_roles(watch)):
            continue
        least = min(counts[role] for role, _ in pids)
        role, name = chance.choice(sorted(key for key in pids if counts[key[0]] == least))
        pid, before = pids[role, name], sum(key[0] == role for key in pids)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself
            continue
        due = time.monotonic() + every_s
        counts[role] += 1
        yield {"role": role, "actor": name, "recovered_s": recovery_s(watch, process, role, pid, before)}


def all_roles(watch: Watch) -> dict[tuple[str, str], int]:
    """Pids as in ``Watch.actors``; empty while a role is missing: stages with fewer actors would only start again."""
    try:
        pids = watch.actors()
    except Exception:  # the run is ending, or its driver is busy
        return {}
    return pids if {role for role, _ in pids} == ROLES else {}


def recovery_s(watch: Watch, process: subprocess.Popen, role: str, pid: int, wanted: int) -> float | None:
    """Seconds until ``role`` has ``wanted`` actors without the victim; None if the run ended or 300 s passed first."""
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


def count_repeats(run_dir: Path) -> dict[str, int]:
    """Number of repeated ids in each table."""
    repeats = {}
    for path in sorted(run_dir.glob("*/*.parquet")):
        if path.parent.name in ("revisions", "comparisons", "preferences", "rollouts"):
            ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
            repeats[str(path.relative_to(run_dir))] = len(ids) - len(set(ids))
    return repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--calm", type=Path, help="results of benchmarks.refresh, for the undisturbed runs")
    parser.add_argument("--from", type=Path, dest="base", help="a finished run to branch off from before reinforcement")
    parser.add_argument("--every-s", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=30, help="at most: a slow machine hardly finishes under fire")
    parser.add_argument("--seed", type=int, default=0, help="for choosing the victims")
    parser.add_argument("--keep", type=Path, help="a new directory for the run, kept for inspection")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run_dir, started = arguments.keep or Path(temporary) / "run", time.monotonic()
        settings = [f"run_dir={run_dir}", *SETTINGS, *arguments.overrides]
        if arguments.base:
            branch(arguments.base, run_dir, load_config(CONCURRENT, settings))
        process = subprocess.Popen([sys.executable, "-m", "actors.cli", "run", str(CONCURRENT), *settings])
        watch = join(run_dir, process)
        victims = []
        chance = random.Random(arguments.seed)
        for kill in kills(watch, process, arguments.every_s, arguments.kills, chance):
            print(kill, flush=True)
            victims.append(kill)
        result = {"exit_code": process.wait(), "seconds": round(time.monotonic() - started, 1), **summary(victims)}
        if process.returncode == 0:
            result |= outcome(run_dir, arguments.calm)
    publish(result, arguments.json)


def summary(victims: list[dict[str, Any]]) -> dict[str, Any]:
    by_role: dict[str, list[float]] = {}
    for kill in victims:
        by_role.setdefault(kill["role"], []).append(kill["recovered_s"])
    times = sorted(kill["recovered_s"] for kill in victims if kill["recovered_s"] is not None)
    return {
        "num_kills": len(victims),
        "kills_by_role": {role: len(times_s) for role, times_s in sorted(by_role.items())},
        "median_recovery_s": times[len(times) // 2] if times else None,
        "kills": victims,
    }


def outcome(run_dir: Path, calm: Path | None) -> dict[str, Any]:
    rows = json.loads((run_dir / "manifest.json").read_text())["rows"]
    harmful = json.loads((run_dir / "evaluation.json").read_text())["answers"]["red_team"]["rl_cai"]["harmful"]
    report: dict[str, Any] = {
        "counts": rows,
        "counts_exact": all(c["rows_in"] == c["rows_out"] + c["quarantined"] for c in rows.values()),
        "doubled": count_repeats(run_dir),
        "harmful": harmful,
    }
    if calm is not None:
        runs = json.loads(calm.read_text())["runs"]["concurrent"]
        interval = paired_interval([run["harmful"] for run in runs.values()])
        report |= {"calm": interval, "within_calm_interval": interval["low"] <= harmful <= interval["high"]}
    return report


if __name__ == "__main__":
    main()
