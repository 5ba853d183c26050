"""Checkpoints of the policy trainer: a directory each, with its manifest written last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rlaif.run_dir import write_atomically


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    version: int
    path: Path


class Checkpoints:
    """The checkpoints of one run; a directory without its manifest is not one. The last two are kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> Checkpoint | None:
        complete = sorted(self._path.glob("policy-*/manifest.json"))
        if not complete:
            return None
        return Checkpoint(version=json.loads(complete[-1].read_text())["version"], path=complete[-1].parent)

    def is_due(self, version: int, every: int) -> bool:
        return version % every == 0

    async def write(self, version: int, save: Callable[[Path], Awaitable[None]]) -> None:
        path = self._path / f"policy-{version:08d}"
        await save(path)
        write_atomically(path / "manifest.json", json.dumps({"version": version}))
        for old in sorted(self._path.glob("policy-*"))[:-2]:
            shutil.rmtree(old)
