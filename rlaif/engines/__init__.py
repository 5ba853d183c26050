"""Inference engines behind one seam (``rlaif.interfaces.AnyEngine``): vLLM, transformers, and one without weights.

A new engine is a ``batching.Backend`` in a module of its own and a row in ``ENGINES``. Heavy libraries are imported
only when an engine that needs them is opened, so this table can be read by anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rlaif.config.schema import PoolSettings
from rlaif.engines.batching import open_batching
from rlaif.engines.scripted import open_scripted
from rlaif.engines.turns import turn_to_start
from rlaif.interfaces import AnyEngine


@dataclass(frozen=True, kw_only=True)
class EngineKind:
    """What is to be known of an engine before it is opened."""

    open: Callable[[str, str | Path | None, PoolSettings], AnyEngine]  #: as ``open_engine``
    in_process_only: bool = False  #: cannot serve a pool on a cluster


def _open_vllm(role: str, model_path: str | Path | None, settings: PoolSettings) -> AnyEngine:
    from rlaif.engines.vllm import VLLMBackend

    return open_batching(partial(VLLMBackend, role=role), role, model_path, settings)


def _open_hf(role: str, model_path: str | Path | None, settings: PoolSettings) -> AnyEngine:
    from rlaif.engines.hf import HFBackend

    return open_batching(HFBackend, role, model_path, settings)


ENGINES: Mapping[str, EngineKind] = {  # by the names that a pool's ``engine`` may have
    "vllm": EngineKind(open=_open_vllm),
    "hf": EngineKind(open=_open_hf, in_process_only=True),
    "scripted": EngineKind(open=open_scripted),
}


def open_engine(role: str, model_path: str | Path | None, settings: PoolSettings) -> AnyEngine:
    """An engine that is ready to serve ``model_path`` in a role: generator, labeller or scorer.

    Blocks while the model loads, on a shared GPU until it is its turn as well. Raises ModelError for a directory that
    the role cannot use (or None, which only the scripted engine accepts), EngineError when loading fails, and
    WaitTimeoutError when it takes too long.
    """
    with turn_to_start(role, settings.gpus):
        return ENGINES[settings.engine].open(role, model_path, settings)
