"""Does memory grow with the number of reinforcement steps? Thousands of steps on scripted engines.

    python -m benchmarks.soak --json benchmarks/results/soak.json

Loops, Ray pools and Ray Train ranks are real, and every role works; engines and trainers are scripted and take no time.
Every few seconds the private memory (USS) of the driver and of every actor is sampled, with the number of batches
learned so far. ``growth`` is the slope of a line fitted to the second half of a process's samples, in MiB per 1,000
steps. Goal: less than 1 MiB for each process over 10,000 steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil

from benchmarks.branches import branch
from benchmarks.concurrency import QUICKSTART, ROWS, prepare, settings
from benchmarks.machine import publish
from rlaif.config.files import load_config

EVERY_S = 5.0
Samples = dict[str, list[tuple[int, float]]]  #: process -> (steps, MiB)


def steps(run_dir: Path) -> int:
    """Batches learned so far; each has one line of metrics."""
    return sum('"stage": "reinforce"' in line for line in (run_dir / "metrics.jsonl").open())


def own_memory(driver: psutil.Process) -> dict[str, float]:
    """Private memory of the driver and of every actor in MiB, by name and pid."""
    memory = {}
    for process in [driver, *driver.children(recursive=True)]:
        try:
            name = "driver" if process.pid == driver.pid else process.name()
            if name == "driver" or name.startswith("ray::"):
                memory[f"{name} {process.pid}"] = process.memory_full_info().uss / 2**20
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended after it was listed
    return memory


def growth(samples: list[tuple[int, float]]) -> float | None:
    """MiB per 1,000 steps over the second half; None for a process that did not live long enough."""
    half = [(step, memory) for step, memory in samples if step >= samples[-1][0] / 2]
    if len(half) < 5 or half[-1][0] - half[0][0] < 100:
        return None
    slope, _ = np.polyfit(*zip(*half, strict=True), deg=1)
    return round(float(slope) * 1000, 3)


def run(num_steps: int, directory: Path) -> tuple[Samples, float]:
    no_time = dict.fromkeys(ROWS, 0.0)
    base = prepare(directory, num_steps)
    overrides = [
        *settings(directory, no_time, num_steps, "concurrent"),
        "reinforcement.checkpoint_every=50",
        "reinforcement.batch_size=8",
        "reinforcement.minibatch_size=8",
        "preference_model.refresh.every=50",
        "preference_model.refresh.comparisons=8",
        "preference_model.refresh.max_pairs=16",
        f"run_dir={directory / 'soak'}",
    ]
    branch(base, directory / "soak", load_config(QUICKSTART, overrides))
    command = [sys.executable, "-m", "actors.cli", "stage", "reinforce", str(QUICKSTART), *overrides]
    started, samples = time.monotonic(), defaultdict(list)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    driver = psutil.Process(process.pid)
    before = steps(directory / "soak")
    while process.poll() is None:
        done = steps(directory / "soak") - before
        if done:
            for name, memory in own_memory(driver).items():
                samples[name].append((done, memory))
        time.sleep(EVERY_S)
    assert process.returncode == 0, f"the run ended with {process.returncode}"
    return samples, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        samples, seconds = run(arguments.steps, Path(temporary))
    slopes = {name: growth(points) for name, points in samples.items()}
    measured = {name: slope for name, slope in slopes.items() if slope is not None}
    result = {
        "steps": arguments.steps,
        "seconds": round(seconds, 1),
        "largest_growth_mib_per_1000_steps": max(measured.values()),
        "growth_mib_per_1000_steps": measured,
        "mib_at_the_end": {name: round(points[-1][1], 1) for name, points in samples.items() if name in measured},
    }
    publish(json.loads(json.dumps(result)), arguments.json)


if __name__ == "__main__":
    main()
