"""Checkpoints of the trainers: a directory each, with its manifest written last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rlaif.interfaces import Refitted
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


@dataclass(frozen=True, kw_only=True)
class PreferenceCheckpoint:
    """``offset`` is taken off the model's scores; ``origin`` is the probes' mean score under version 0."""

    version: int
    path: Path
    offset: float
    origin: float


class PreferenceCheckpoints:
    """The refreshed preference models of one run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def latest(self, most: int) -> PreferenceCheckpoint | None:
        """The newest complete one whose version is at most ``most``."""
        found = [checkpoint for checkpoint in self._complete() if checkpoint.version <= most]
        return found[-1] if found else None

    async def write(self, refitted: Refitted, save: Callable[[Path], Awaitable[None]]) -> float:
        """Save a refreshed model; returns its offset."""
        before = self.latest(refitted.version - 1)
        origin = refitted.probe_mean_before if before is None else before.origin
        path = self._path / f"preference-{refitted.version:08d}"
        await save(path)
        facts = {"version": refitted.version, "offset": refitted.probe_mean_after - origin, "origin": origin}
        write_atomically(path / "manifest.json", json.dumps(facts))
        return facts["offset"]

    def forget_after(self, version: int) -> None:
        """Drop models of a future that will be trained again."""
        self._drop(lambda found: found > version)

    def forget_before(self, version: int) -> None:
        """Drop models older than the one that a run resumed from here would begin with."""
        if (kept := self.latest(version)) is not None:
            self._drop(lambda found: found < kept.version)

    def _complete(self) -> list[PreferenceCheckpoint]:
        manifests = sorted(self._path.glob("preference-*/manifest.json"))
        return [PreferenceCheckpoint(path=path.parent, **json.loads(path.read_text())) for path in manifests]

    def _drop(self, unwanted: Callable[[int], bool]) -> None:
        for path in self._path.glob("preference-*"):
            if unwanted(int(path.name.removeprefix("preference-"))):
                shutil.rmtree(path)
