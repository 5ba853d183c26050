"""``config.yaml``: the configuration that a run was made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif.config.files import dump_config, load_config
from rlaif.config.schema import Config
from rlaif.errors import ConfigError, RunDirError
from rlaif.storage.damage import check_places, damaged, reading
from rlaif.storage.files import write_atomically

CONFIG_FILE = "config.yaml"
_FIRST, _LAST = "# The resolved configuration of this run, to the line that says: end\n", "# end\n"


def write_config(run_dir: Path, config: Config) -> None:
    """Write the configuration so that a part of it does not pass for the whole: what is left out has defaults."""
    write_atomically(run_dir / CONFIG_FILE, f"{_FIRST}{dump_config(config)}{_LAST}")


def stored_config(run_dir: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a run was made with, and ``overrides`` on top.

    Raises RunDirError when there is none, DamagedError when it cannot be read, ConfigError for wrong overrides.
    """
    path = run_dir / CONFIG_FILE
    check_places(run_dir)
    if not path.is_file():
        raise RunDirError(f"{run_dir}: not a run directory (no {CONFIG_FILE})")
    with reading(path):
        text = path.read_text(encoding="utf-8")
    if text.strip() in ("", "null", "~", "{}"):  # it would pass for a configuration of defaults
        raise damaged(path, "is empty")
    if text.startswith(_FIRST) and not text.endswith(_LAST):
        raise damaged(path, "is cut off")
    try:
        stored = load_config(path)
    except ConfigError as error:
        raise damaged(path, f"is damaged, or of another version: {error}") from error
    return load_config(path, overrides) if overrides else stored
