"""``config.yaml``: the configuration that a run was made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.errors import ConfigError, RunDirError
from rlaif.storage.damage import damaged, reading

CONFIG_FILE = "config.yaml"


def stored_config(run_dir: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a run was made with, and ``overrides`` on top.

    Raises RunDirError when there is none, DamagedError when it cannot be read, ConfigError for wrong overrides.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise RunDirError(f"{run_dir}: not a run directory (no {CONFIG_FILE})")
    with reading(path):
        if not path.read_text(encoding="utf-8").strip():
            raise damaged(path, "is empty")
    try:
        stored = load_config(path)
    except ConfigError as error:
        raise damaged(path, f"is damaged, or of another version: {error}") from error
    return load_config(path, overrides) if overrides else stored
