"""Does a running job speed up when it gets more engines, and lose nothing when they are taken away?

    python -m benchmarks.scale --json FILE

``rlaif label`` labels pairs, as a user runs it, with one labeller; ``rlaif scale OUT labeller 4`` is given while it
runs, then ``rlaif scale OUT labeller 1``, and the job runs to its end. ``ratio``: labels per second in the ``WINDOW_S``
after four labellers serve, divided by those before. ``labels`` must equal ``pairs``: every pair has a label.

``scripted``: a pair takes two requests of 50 ms, one after the other; goal: a ratio of at least 3.5. ``real``: the
miniature's judge on vLLM; all labellers share this machine's cores, so the ratio means little, but no row may be lost.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.machine import publish
from benchmarks.scripted_labellers import SERVICE_S

LARGEST = 4
WINDOW_S = 5.0
START_TIMEOUT_S = 600.0
PAIRS = {"scripted": 1200, "real": 25_000}
LABELLERS = {
    "scripted": {
        "engine": "scripted",
        "max_in_flight": 16,
        "chunk_rows": 8,
        "scripted.concurrency": 1,
        "scripted.latency_s": SERVICE_S,
    },
    "real": {"model": "miniature:feedback", "threads": 1, "max_length": 256, "kv_cache_gib": 0.2},
}


def rlaif(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "actors.cli", *arguments]


def write_pairs(path: Path, num: int) -> None:
    rows = ({"prompt": f"Question {n}?", "answer_1": f"Yes, {n}.", "answer_2": f"No, {n}."} for n in range(num))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Job:
    """A labelling job in a process of its own, and the labels in its journal."""

    def __init__(self, directory: Path, engines: str) -> None:
        write_pairs(directory / "pairs.jsonl", PAIRS[engines])
        self.out = directory / "out"
        settings = {"max": LARGEST, "cpus": 0.5, **LABELLERS[engines]}
        keys = [f"labeller.{key}={value}" for key, value in settings.items()]
        command = rlaif("label", str(directory / "pairs.jsonl"), "--out", str(self.out), *keys, "resources.cpus=4")
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def labels(self) -> int:
        """Distinct ids labelled so far."""
        if not (self.out / "journal.sqlite").exists():
            return 0
        with closing(sqlite3.connect(self.out / "journal.sqlite")) as db:
            query = "SELECT count(DISTINCT id) FROM records WHERE kind = 'preferences'"
            try:
                return db.execute(query).fetchone()[0]
            except sqlite3.OperationalError:  # the file exists before its tables do
                return 0

    def wait_for_labels(self, num: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.labels() < num:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the job ended or stalled at {self.labels()} labels")
            time.sleep(0.05)

    def rate(self) -> float:
        """Labels per second in a window that starts now."""
        before, began = self.labels(), time.monotonic()
        time.sleep(WINDOW_S)
        return (self.labels() - before) / (time.monotonic() - began)

    def scale(self, size: int) -> float:
        """Run ``rlaif scale``; returns its seconds."""
        began = time.monotonic()
        subprocess.run(rlaif("scale", str(self.out), "labeller", str(size)), check=True)
        return round(time.monotonic() - began, 1)


def measure(directory: Path, engines: str) -> dict[str, Any]:
    job = Job(directory, engines)
    try:
        job.wait_for_labels(20)
        before = job.rate()
        up_s = job.scale(LARGEST)
        after = job.rate()
        down_s = job.scale(1)
        again = job.rate()
        code = job.process.wait(START_TIMEOUT_S)
    finally:
        job.process.kill()
    return {
        "labels_per_s": {"one": round(before, 2), "four": round(after, 2), "one_again": round(again, 2)},
        "ratio": round(after / before, 3),
        "scale_up_s": up_s,
        "scale_down_s": down_s,
        "exit_code": code,
        "pairs": PAIRS[engines],
        "labels": job.labels(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {}
    for engines in LABELLERS:
        with tempfile.TemporaryDirectory() as directory:
            result[engines] = measure(Path(directory), engines)
            print(engines, result[engines], flush=True)
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
