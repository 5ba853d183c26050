"""Where ``miniature:NAME`` is: models and data, made on first use and cached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlaif.config.contradictions import flatten
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.errors import RunError
from rlaif.miniature.make import FILES, MODELS, is_cached, make


def miniature_paths(config: Config, constitution: Constitution, keys: Iterable[str]) -> Mapping[str, Path]:
    """``miniature:NAME`` -> path, for every name; empty, with nothing made, if none of ``keys`` has such a value."""
    flat = flatten(config)
    if not any(str(flat[key]).startswith("miniature:") for key in keys):
        return {}
    if not is_cached(config.miniature, constitution):
        _make_in_subprocess(config)
    miniature = make(config.miniature, constitution)
    return {f"miniature:{name}": miniature.path(name) for name in (*FILES, *MODELS)}


def _make_in_subprocess(config: Config) -> None:
    """Make it in another process, to keep torch out of the driver's memory and its messages out of the terminal."""
    settings = config.miniature
    command = [sys.executable, "-m", "rlaif.miniature.make", "--constitution", config.constitution]
    command += [f"--seed={settings.seed}", f"--slot-bias={settings.slot_bias}", f"--cache-dir={settings.cache_dir}"]
    command += [f"--lexicon={settings.lexicon}"] if settings.lexicon else []
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RunError(f"the miniature could not be made:\n{process.stderr[-2000:]}")
