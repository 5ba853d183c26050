"""The baseline of the inference benchmarks: vLLM without the system, with a run's engine arguments, in its own process.

All requests are submitted at once, either in one ``LLM.generate`` call or by adding them to the engine and stepping it;
the faster of the two counts.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from typing import Any

from rlaif.config.schema import PoolSettings

TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Bare:
    """One request: prompt, number of tokens to generate (EOS is ignored), and any choices to score (then one token)."""

    prompt_ids: tuple[int, ...]
    max_tokens: int = 1
    choice_ids: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """``way``: generate or step. ``cached``: share of prompt tokens found in the prefix cache."""

    way: str
    seconds: float
    cached: float


class BareEngine:
    """vLLM in a process of its own, which idles while the system is measured."""

    def __init__(self, model: str, settings: PoolSettings) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, model, settings), daemon=True)
        self._process.start()
        assert self._reply() == "ready"

    def time(self, requests: list[Bare], way: str) -> Timing:
        self._ours.send((requests, way))
        return self._reply()

    def close(self) -> None:
        self._ours.send(None)
        self._process.join(60)

    def _reply(self) -> Any:
        deadline = time.monotonic() + TIMEOUT_S
        while not self._ours.poll(0.05):
            if not self._process.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the bare engine died or hung")
        return self._ours.recv()


def _serve(pipe: Any, model: str, settings: PoolSettings) -> None:
    import os

    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    from rlaif.engines.models import read_model
    from rlaif.engines.vllm import VLLMBackend

    served = read_model(model, field="model", max_length=settings.max_length, pooling=False)
    backend = VLLMBackend(served, settings, "engine")
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        requests, way = order
        pipe.send(_timed(backend._llm, requests, way))  # vLLM itself, opened as the system opens it


def _timed(llm: Any, requests: list[Bare], way: str) -> Timing:
    started = time.perf_counter()
    outputs = _generate(llm, requests) if way == "generate" else _step(llm.llm_engine, requests)
    seconds = time.perf_counter() - started
    assert len(outputs) == len(requests)
    num_prompt_tokens = sum(len(request.prompt_ids) for request in requests)
    return Timing(way=way, seconds=seconds, cached=sum(o.num_cached_tokens or 0 for o in outputs) / num_prompt_tokens)


def _generate(llm: Any, requests: list[Bare]) -> list[Any]:
    prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
    return llm.generate(prompts, [_params(request) for request in requests], use_tqdm=False)


def _step(engine: Any, requests: list[Bare]) -> list[Any]:
    for key, request in enumerate(requests):
        engine.add_request(f"bare-{key}", {"prompt_token_ids": list(request.prompt_ids)}, _params(request))
    outputs = []
    while engine.has_unfinished_requests():
        outputs += [output for output in engine.step() if output.finished]
    return outputs


def _params(request: Bare) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    if request.choice_ids:
        choices = {"logprob_token_ids": list(request.choice_ids), "temperature": 0}
    else:
        choices = {"temperature": 1.0, "logprobs": 0, "ignore_eos": True, "seed": request.seed}
    return SamplingParams(
        max_tokens=request.max_tokens, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **choices
    )
