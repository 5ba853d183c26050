"""The pool benchmarks' work: rows of 1 KB, one request to a scripted engine each, and results of the same size."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from rlaif.config.schema import Config
from rlaif.data.comparisons import unsampled_comparison
from rlaif.records import Comparison, Judgement, Preference, Turn

ROW_BYTES = 1024
SERVICE_S = 0.05
CHUNK_ROWS = 64
SHARED = [field.name for field in fields(Comparison) if field.name in {field.name for field in fields(Preference)}]


def comparisons(prefix: str, num: int | None = None) -> Iterator[Comparison]:
    """Pairs of about a kilobyte, made only as they are consumed; endless without ``num``."""
    rng = random.Random(0)
    text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=4 * ROW_BYTES))
    for number in itertools.count() if num is None else range(num):
        at = number % (3 * ROW_BYTES)
        prompt = (Turn(role="human", text=text[at : at + ROW_BYTES // 2]),)
        answers = text[at : at + ROW_BYTES // 4], text[at + 1 : at + 1 + ROW_BYTES // 4]
        yield unsampled_comparison(f"{prefix}:{number}", prompt, *answers)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Comparison in, Preference out, with one request of a few tokens, so that transport is what gets measured."""

    async def __call__(self, engine: Any, pair: Comparison) -> Preference:
        logprob_a, logprob_b = await engine.choice_logprobs([1, 2, 3], [65, 66])
        return Preference(
            **{name: getattr(pair, name) for name in SHARED},
            prob=0.5,
            aggregation="none",
            judgements=(Judgement(principle_id="none", order=1, logprob_a=logprob_a, logprob_b=logprob_b),),
            constitution_hash="none",
            template_version="none",
        )


def scripted_config(run_dir: str, *, low: int, high: int, service_s: float) -> Config:
    """Up to ``high`` labellers, each serving one row at a time in ``service_s``; if that is 0, all rows at once."""
    script = {"latency_s": service_s, "concurrency": 1} if service_s else {}
    labeller = {"engine": "scripted", "cpus": 0.01, "min": low, "max": high, "scripted": script}
    sizes = {"chunk_rows": CHUNK_ROWS, "max_in_flight": 2 * CHUNK_ROWS}
    values = {"run_dir": run_dir, "labeller": {**labeller, **sizes}, "resources": {"cpus": 2, "object_store_gib": 1}}
    return Config.model_validate(values)
