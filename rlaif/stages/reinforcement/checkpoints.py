"""Checkpoints of the trainers: a directory each; its manifest is written last and removed first.

Whoever writes one settles the rows that it goes with before (``RunDir.settle``).
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from rlaif.interfaces import PolicyLearner, PreferenceLearner, Refitted
from rlaif.places.writing import settle, settle_tree
from rlaif.storage.damage import DamagedError, reading
from rlaif.storage.files import write_atomically

_CheckpointT = TypeVar("_CheckpointT", "Checkpoint", "PreferenceCheckpoint")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """``score``: the mean preference score of the last batch that was learned."""

    version: int
    score: float
    path: Path


class Checkpoints:
    """The checkpoints of one run; a directory without its manifest is not one.

    The last ``keep`` are kept, and of those before them the one with the best score.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep

    def last(self) -> Checkpoint | None:
        return max(self._complete(), key=lambda checkpoint: checkpoint.version, default=None)

    def best(self) -> Checkpoint | None:
        """The one with the best score, the later of equals."""
        return max(self._complete(), key=lambda checkpoint: (checkpoint.score, checkpoint.version), default=None)

    def is_due(self, version: int, every: int) -> bool:
        return version % every == 0

    async def begin(self, version: int, learner: PolicyLearner) -> None:
        path = self._at(version)
        _remove(path)  # what an interrupted run left of it
        await learner.begin_checkpoint(path)

    async def finish(self, version: int, learner: PolicyLearner, score: float) -> None:
        """Return when the one that was begun is whole, and those that are not kept any longer are gone."""
        await learner.finish_checkpoint()
        path = self._at(version)
        await asyncio.to_thread(settle_tree, path)
        write_atomically(path / "manifest.json", json.dumps({"version": version, "score": score}))
        for old in set(self._path.glob("policy-*")) - self._kept():
            _remove(old)

    def _at(self, version: int) -> Path:
        return self._path / f"policy-{version:08d}"

    def _kept(self) -> set[Path]:
        complete = sorted(self._complete(), key=lambda checkpoint: checkpoint.version)
        best = self.best()
        return {checkpoint.path for checkpoint in (*complete[-self._keep :], *([best] if best else []))}

    def _complete(self) -> list[Checkpoint]:
        return [_read(Checkpoint, manifest) for manifest in self._path.glob("policy-*/manifest.json")]


@dataclass(frozen=True, kw_only=True)
class PreferenceCheckpoint:
    """``offset`` is subtracted from the model's scores; ``origin`` is the probes' mean score under version 0."""

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
        return max(
            (checkpoint for checkpoint in self._complete() if checkpoint.version <= most),
            key=lambda checkpoint: checkpoint.version,
            default=None,
        )

    def oldest(self) -> int:
        """The version of the oldest one that is kept; 0 when there is none."""
        return min((checkpoint.version for checkpoint in self._complete()), default=0)

    async def write(self, refitted: Refitted, learner: PreferenceLearner) -> float:
        """Save a refreshed model; returns its offset."""
        before = self.latest(refitted.version - 1)
        origin = refitted.probe_mean_before if before is None else before.origin
        path = self._path / f"preference-{refitted.version:08d}"
        _remove(path)  # what an interrupted run left of it
        await learner.begin_checkpoint(path)
        await learner.finish_checkpoint()
        await asyncio.to_thread(settle_tree, path)
        offset = refitted.probe_mean_after - origin
        facts = {"version": refitted.version, "offset": offset, "origin": origin}
        write_atomically(path / "manifest.json", json.dumps(facts))
        return offset

    def forget_after(self, version: int) -> None:
        """Drop later models: they will be trained again."""
        self._drop(lambda other: other > version)

    def forget_before(self, version: int) -> None:
        """Drop models older than the one that a run resumed from here would begin with."""
        if (kept := self.latest(version)) is not None:
            self._drop(lambda other: other < kept.version)

    def _complete(self) -> list[PreferenceCheckpoint]:
        return [_read(PreferenceCheckpoint, path) for path in sorted(self._path.glob("preference-*/manifest.json"))]

    def _drop(self, unwanted: Callable[[int], bool]) -> None:
        for path in self._path.glob("preference-*"):
            if unwanted(int(path.name.removeprefix("preference-"))):
                _remove(path)


def _read(kind: type[_CheckpointT], manifest: Path) -> _CheckpointT:
    """The checkpoint of a manifest. Raises DamagedError."""
    with reading(manifest):
        facts = {**json.loads(manifest.read_text(encoding="utf-8")), "path": manifest.parent}
        return TypeAdapter(kind).validate_python(facts)


def remove_damaged(path: Path) -> Iterator[str]:
    """Remove the checkpoints in ``path`` whose manifests cannot be read; yields what is wrong with them."""
    for manifest in sorted(path.glob("*/manifest.json")):
        try:
            if manifest.parent.name.startswith("policy-"):
                _read(Checkpoint, manifest)
            else:
                _read(PreferenceCheckpoint, manifest)
        except DamagedError as error:
            _remove(manifest.parent)
            yield str(error)


def _remove(path: Path) -> None:
    """Its manifest first: a directory that is half removed must not pass for a checkpoint."""
    if path.is_dir():
        (path / "manifest.json").unlink(missing_ok=True)
        settle(path)
    shutil.rmtree(path, ignore_errors=True)
