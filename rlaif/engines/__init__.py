"""Inference engines behind one seam (``rlaif.interfaces``): vLLM, transformers, and a scripted one without weights.

Heavy libraries are imported only by the engine that is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.config.schema import PoolSettings
from rlaif.errors import ModelError


def open_engine(role: str, model_path: str | Path | None, settings: PoolSettings) -> Any:
    """An engine that is ready to serve ``model_path`` in a role: generator, labeller or scorer.

    Blocks while the model loads. Raises ModelError for a directory that the role cannot use (or none, which only the
    scripted engine does without), EngineError when loading fails and WaitTimeoutError when it takes too long.
    """
    pooling = role == "scorer"
    field = f"{role}.model"
    if settings.engine == "scripted":
        from rlaif.engines.scripted import open_scripted

        return open_scripted(model_path or None, settings, pooling=pooling, field=field)
    if model_path is None:
        raise ModelError(f"{field}: engine {settings.engine} needs a model")
    if settings.engine == "hf":
        from rlaif.engines.hf import open_hf

        return open_hf(model_path, settings, pooling=pooling, field=field)
    from rlaif.engines.vllm import open_vllm

    return open_vllm(model_path, settings, pooling=pooling, field=field)
