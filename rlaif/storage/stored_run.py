"""A run directory as it is: what has been done there, and what it was done with. Reading it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.constitution.principles import Constitution
from rlaif.storage.damage import check_places, reading
from rlaif.storage.journal import Journal
from rlaif.storage.manifest import MANIFEST_FILE, Manifest, read_manifest


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """Rows of ``kind``, as (recorded, quarantined) by the manifest and in the journal."""

    kind: str
    manifest: tuple[int, int]
    journal: tuple[int, int]

    def __str__(self) -> str:
        def counts(rows: tuple[int, int]) -> str:
            return f"{rows[0]:,} rows and {rows[1]:,} quarantined"

        return f"{self.kind}: {MANIFEST_FILE} says {counts(self.manifest)}, journal.sqlite has {counts(self.journal)}"


class StoredRun:
    """What ``manifest`` and ``journal`` of the run directory ``path`` hold."""

    def __init__(self, path: Path, manifest: Manifest, journal: Journal) -> None:
        self.path = path
        self._manifest = manifest
        self.journal = journal

    @classmethod
    def open(cls, path: Path) -> StoredRun:
        """Raises RunDirError when ``path`` is no run directory, or one of another format, or damaged."""
        check_places(path)
        return cls(path, read_manifest(path), Journal(path / "journal.sqlite", read_only=True))

    def close(self) -> None:
        self.journal.close()

    def model(self, name: str) -> Path:
        """Where ``sl_cai``, ``preference_model`` or ``rl_cai`` is saved; absolute, for processes elsewhere."""
        return self.path.absolute() / "models" / name

    def training_set(self, name: str) -> Path:
        """Where a training set (a parquet file) is written for Ray Data to read."""
        return self.path.absolute() / "training_sets" / f"{name}.parquet"

    def constitution(self) -> Constitution | None:
        """The one that the run last used; None in a new run."""
        stored = self.path / "constitution.json"
        if not stored.exists():
            return None
        with reading(stored):
            return Constitution.model_validate_json(stored.read_text(encoding="utf-8"))

    @property
    def inputs(self) -> Mapping[str, str]:
        """Hashes of the models and files that the run has used, by configuration key."""
        inputs: Mapping[str, str] = self._manifest.get("inputs", {})
        return inputs

    @property
    def made_models(self) -> Mapping[str, str]:
        """Hashes of the models that finished stages have made, by name."""
        made: Mapping[str, str] = self._manifest.get("models", {})
        return made

    @property
    def all_rows(self) -> Mapping[str, Mapping[str, Any]]:
        """What became of the rows of each kind: ``rows_in``, ``rows_out``, ``quarantined``, ``cut``."""
        rows: Mapping[str, Mapping[str, Any]] = self._manifest["rows"]
        return rows

    def rows(self, kind: str) -> Mapping[str, Any]:
        """What became of the rows of ``kind``."""
        return self.all_rows[kind]

    def is_accounted(self, kind: str) -> bool:
        return kind in self.all_rows

    def discrepancy(self, kind: str, *, recorded: bool = True) -> Discrepancy | None:
        """Whether the journal holds other numbers of rows of ``kind`` than the manifest says.

        ``recorded`` is false for rows of which only those that are quarantined are in the journal. A record that could
        not be read is in quarantine since: that is no difference, because no row is lost without a name.
        """
        counts = self._manifest["rows"].get(kind)
        if counts is None:
            return None
        rows_out = counts["rows_out"]
        said = rows_out, counts["quarantined"]
        held = self.journal.count(kind) if recorded else rows_out, self.journal.num_quarantined(kind)
        moved = recorded and sum(said) == sum(held) and held[0] < said[0]
        return None if said == held or moved else Discrepancy(kind=kind, manifest=said, journal=held)

    def is_finished(self, stage: str) -> bool:
        """Whether a stage of the pipeline has run to its end."""
        return stage in self._manifest["stages"]
