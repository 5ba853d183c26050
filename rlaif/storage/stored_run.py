"""A run directory as it is: what has been done there, and what it was done with. Reading it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlaif.constitution.principles import Constitution
from rlaif.storage.journal import Journal
from rlaif.storage.manifest import Manifest, read_manifest


class StoredRun:
    """What ``manifest`` and ``journal`` of the run directory ``path`` hold."""

    def __init__(self, path: Path, manifest: Manifest, journal: Journal) -> None:
        self.path = path
        self._manifest = manifest
        self.journal = journal

    @classmethod
    def open(cls, path: Path) -> StoredRun:
        """Raises RunDirError when ``path`` is no run directory, or one of another format."""
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
        return Constitution.model_validate_json(stored.read_text(encoding="utf-8")) if stored.exists() else None

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

    def rows(self, kind: str) -> dict[str, int]:
        """What became of the rows of ``kind``: ``rows_in``, ``rows_out``, ``quarantined``."""
        counts: dict[str, int] = self._manifest["rows"][kind]
        return counts

    def is_finished(self, stage: str) -> bool:
        """Whether a stage of the pipeline has run to its end."""
        return stage in self._manifest["stages"]
