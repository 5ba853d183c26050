"""Where ``miniature:NAME`` is: models and data made on first use, then found in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlaif.config import Config
from rlaif.config_checks import MODEL_KEYS, SOURCE_KEYS, flatten
from rlaif.constitution import Constitution
from rlaif.miniature.make import FILES, MODELS, make


def miniature_paths(config: Config, constitution: Constitution) -> Mapping[str, Path]:
    """``miniature:NAME`` -> path, for every name; empty (and nothing made) when the configuration uses none."""
    flat = flatten(config)
    if not any(str(flat[key]).startswith("miniature:") for key in (*SOURCE_KEYS, *MODEL_KEYS)):
        return {}
    made = make(config.miniature, constitution)
    return {f"miniature:{name}": made.path(name) for name in (*FILES, *MODELS)}
