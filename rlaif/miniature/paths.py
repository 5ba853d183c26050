"""Where the miniature's models and data are: made on first use, in processes of its own, then found in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlaif.config import Config
from rlaif.config_checks import MODEL_KEYS, SOURCE_KEYS, flatten
from rlaif.constitution import Constitution


def miniature_paths(config: Config, constitution: Constitution) -> Mapping[str, Path]:
    """``miniature:NAME`` -> path, for every name; empty (and nothing made) when the configuration uses none."""
    flat = flatten(config)
    if not any(str(flat[key]).startswith("miniature:") for key in (*SOURCE_KEYS, *MODEL_KEYS)):
        return {}
    from rlaif.miniature.make import make

    return make(config.miniature, constitution).named()
