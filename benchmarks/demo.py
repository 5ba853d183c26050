"""How long does the demo take once installed, and how much memory does its whole process tree need?

    python -m benchmarks.demo --json FILE

Runs ``rlaif run configs/quickstart.yaml`` in a fresh run directory (``--keep`` names one) with an empty model cache,
and sums the proportional set sizes (a page shared by n processes counts 1/n in each) of the whole tree twice a second.
Goals on two cores: 480 s, 14 GiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.machine import publish

EVERY_S = 0.5


def tree_pss(root: psutil.Process) -> int:
    """Proportional set size of a process and all its descendants, in bytes."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended after it was listed
    return total


def measure(command: list[str]) -> dict[str, float]:
    """Run a command to its end; returns its seconds, its exit code and the peak memory of its tree."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, tree_pss(root))
        except psutil.NoSuchProcess:
            break
        time.sleep(EVERY_S)
    return {
        "exit_code": process.wait(),
        "seconds": round(time.monotonic() - started, 1),
        "peak_pss_gib": round(peak / 2**30, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="a run directory to use and keep")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run_dir = arguments.keep or Path(directory) / "run"
        result = measure(
            [
                sys.executable,
                "-m",
                "actors.cli",
                "run",
                "configs/quickstart.yaml",
                f"run_dir={run_dir}",
                f"miniature.cache_dir={directory}/cache",
                *arguments.overrides,
            ]
        )
        stages = json.loads((run_dir / "manifest.json").read_text())["stages"]
    publish({**result, "stages": stages}, arguments.json)


if __name__ == "__main__":
    main()
