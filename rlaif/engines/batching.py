"""The thread that drives a batching engine, and the coroutines that wait for it.

Each caller puts a request into the inbox and awaits a future. One thread admits what is in the inbox, steps the
backend, and hands everything that finished in a step to the event loop in one wake-up. With nothing to do it sleeps.

New weights pass through the same inbox; ``on_new_weights`` says what happens to running requests. ``finish``: the
weights are a barrier. Earlier requests finish first, under the old version; later ones start under the new version; no
completion mixes versions. ``pause``: running requests are paused between two steps while the weights are exchanged,
and continue under the new ones. The backend recomputes what it had cached for them, so each token's log-probability is
that of one version, given everything before it. Such a completion ends in a later version than it started in.

This module knows nothing of models, sampling, vLLM or torch. The backend does.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import TimeoutError as ThreadTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlaif.config.schema import PoolSettings
from rlaif.engines.models import ServedModel, read_model
from rlaif.engines.requests import (
    ChoiceRequest,
    Request,
    ScoreRequest,
    answer_text,
    check_coverage,
    check_finite,
    choice_request,
    generate_request,
    probe_requests,
    score_request,
)
from rlaif.errors import EngineError, ModelError, RequestError, WaitTimeoutError, WeightSyncError, quote_error
from rlaif.interfaces import Weights
from rlaif.places.traffic import Traffic, moved_bytes
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import Completion, FinishReason, Sampling

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

CLOSE_TIMEOUT_S = 60.0
LOADING_POLL_S = 1.0
PROBE_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledTokens:
    """A backend's answer to a GenerateRequest. ``logprobs`` [T] belong to ``token_ids`` [T]."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


Result = SampledTokens | tuple[float, ...] | float  #: for a GenerateRequest, a ChoiceRequest, a ScoreRequest


class Backend(Protocol):
    """A model that serves many requests at once. Constructed, used and closed in one thread.

    Requests were checked (``requests``) before they are admitted; ``key`` tells them apart.
    """

    prefix_hits: tuple[int, int]  #: prompt tokens found in the prefix cache, and all prompt tokens

    def admit(self, key: int, request: Request) -> None:
        """Accept a request. Raises RequestError when it cannot be served."""
        ...

    def cancel(self, key: int) -> None:
        """Forget an admitted request; nothing is returned for it."""
        ...

    def step(self) -> Sequence[tuple[int, Result]]:
        """Do one round of work; returns the requests that finished, by their keys."""
        ...

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Replace all weights and drop what was cached under the old ones; running requests go on where they were."""
        ...

    def close(self) -> None: ...


def open_batching(
    open_backend: Callable[[ServedModel, PoolSettings], Backend],
    role: str,
    model_path: str | Path | None,
    settings: PoolSettings,
) -> BatchingEngine:
    """An engine over a backend, which is constructed in the engine's thread. Blocks and raises as ``open_engine``."""
    field, pooling = f"{role}.model", role == "scorer"
    if model_path is None:
        raise ModelError(f"{field}: engine {settings.engine} needs a model")
    model = read_model(model_path, field=field, max_length=settings.max_length, pooling=pooling)
    return BatchingEngine(lambda: open_backend(model, settings), model, load_tokenizer(model_path), settings)


@dataclass(frozen=True, kw_only=True)
class _Exchange:
    """New weights, and the requests that prove that they are served."""

    weights: Weights
    probe: Sequence[ChoiceRequest | ScoreRequest]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    key: int
    work: Request | _Exchange
    future: asyncio.Future[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Running:
    """A request in the backend, and the version that it started under."""

    call: _Call
    version: int


class BatchingEngine:
    """TextGenerator and ChoiceScorer over a language model, SequenceScorer over a preference model."""

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        model: ServedModel,
        tokenizer: PreTrainedTokenizerFast,
        settings: PoolSettings,
    ) -> None:
        """Returns when the model is loaded. Raises EngineError when that fails, WaitTimeoutError when it hangs."""
        self.tokenizer = tokenizer
        self.max_length = model.max_length
        self.model_version = model.version
        self.policy_version = 0
        self._model = model
        self._tolerance = PROBE_TOLERANCE[settings.dtype]
        self._sync_timeout_s = settings.start_timeout_s
        self._pauses = settings.on_new_weights == "pause"
        self._keys = itertools.count()
        self._wake = threading.Condition()
        self._inbox: deque[_Call] = deque()
        self._cancelled: list[int] = []
        self._running: dict[int, _Running] = {}
        self._ended: EngineError | None = None  # why nothing more is served
        self._closing = False
        self._backend: Backend
        opened: ThreadFuture[None] = ThreadFuture()
        self._thread = threading.Thread(target=self._live, args=(open_backend, opened), name=model.version, daemon=True)
        self._thread.start()
        self._await_opening(opened, settings.start_timeout_s)

    # ------------------------------------------------------------------------------------ the callers' side
    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        request = generate_request(self._model, prompt_ids, sampling)
        sampled, (start, end) = await self._ask(request)
        check_finite(self._model, sampled.logprobs)
        return Completion(
            token_ids=sampled.token_ids,
            logprobs=sampled.logprobs,
            text=answer_text(self.tokenizer, sampled.token_ids, self._model.end_ids, sampling.stop),
            finish_reason=sampled.finish_reason,
            policy_version_start=start,
            policy_version_end=end,
        )

    async def choice_logprobs(self, prompt_ids: Sequence[int], choice_ids: Sequence[int]) -> tuple[float, ...]:
        logprobs, _ = await self._ask(choice_request(self._model, prompt_ids, choice_ids))
        check_finite(self._model, logprobs)
        return logprobs

    async def score(self, token_ids: Sequence[int]) -> float:
        score, _ = await self._ask(score_request(self._model, token_ids))
        check_finite(self._model, (score,))
        return score

    async def update_weights(self, weights: Weights) -> None:
        """As ``Engine.update_weights``; running requests finish first or pause, later ones wait.

        Names, shapes and version are checked before anything is touched: a WeightSyncError from these checks leaves
        the engine serving as before. After a probe that differs, it serves nothing more.
        """
        probe = probe_requests(self._model, self.policy_version, weights)
        check_coverage(self._model, weights)
        try:
            await asyncio.wait_for(self._ask(_Exchange(weights=weights, probe=probe)), self._sync_timeout_s)
        except TimeoutError as error:
            waited = f"waited {self._sync_timeout_s:g} s"
            raise WaitTimeoutError(f"{waited} for {self.model_version} to serve weights {weights.version}") from error

    def prefix_hits(self) -> tuple[int, int]:
        """Prompt tokens found in the prefix cache, and all prompt tokens, since the engine was opened."""
        return self._backend.prefix_hits

    async def close(self) -> None:
        """Stop; requests still waiting get an EngineError. Raises WaitTimeoutError when the thread does not end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            raise WaitTimeoutError(f"waited {CLOSE_TIMEOUT_S:g} s for engine {self.model_version} to close")

    async def _ask(self, work: Request | _Exchange) -> Any:
        call = _Call(key=next(self._keys), work=work, future=asyncio.get_running_loop().create_future())
        with self._wake:
            if self._ended is not None:
                raise EngineError(str(self._ended))
            self._inbox.append(call)
            self._wake.notify()
        try:
            return await call.future
        except asyncio.CancelledError:
            with self._wake:
                self._cancelled.append(call.key)
                self._wake.notify()
            raise

    def _await_opening(self, opened: ThreadFuture[None], timeout_s: float) -> None:
        """However long it takes; raises WaitTimeoutError when this process moves no bytes for ``timeout_s``."""
        traffic = Traffic(moved_bytes())
        while traffic.silence(moved_bytes()) < timeout_s:
            with suppress(ThreadTimeoutError):
                return opened.result(min(LOADING_POLL_S, timeout_s))
        self._closing = True
        raise WaitTimeoutError(
            f"waited for {self._model.path} to load, and nothing was read for {timeout_s:g} s"
        ) from None

    # ------------------------------------------------------------------------------------- the thread's side
    def _live(self, open_backend: Callable[[], Backend], opened: ThreadFuture[None]) -> None:
        try:
            self._backend = open_backend()
        except BaseException as error:
            cause = str(error) if isinstance(error, EngineError) else quote_error(error)
            opened.set_exception(EngineError(f"{self._model.path} cannot be loaded: {cause}"))
            return
        opened.set_result(None)
        reason = EngineError(f"engine {self.model_version} was closed")
        try:
            while self._await_work():
                self._round()
        except WeightSyncError as error:
            reason = EngineError(f"engine {self.model_version} must be replaced: {error}")
        except BaseException as error:
            reason = EngineError(f"engine {self.model_version} died: {quote_error(error)}")
        finally:
            self._end(reason)

    def _await_work(self) -> bool:
        """Sleep until there is something to do; False when the engine is to close."""
        with self._wake:
            while not (self._inbox or self._running or self._cancelled or self._closing):
                self._wake.wait()
            return not self._closing

    def _round(self) -> None:
        self._drop_cancelled()
        while (call := self._next()) is not None:
            self._begin(call)
        if self._running:
            _hand_over([self._finish(key, result) for key, result in self._backend.step()])

    def _drop_cancelled(self) -> None:
        with self._wake:
            keys, self._cancelled = self._cancelled, []
        for key in keys:
            if self._running.pop(key, None) is not None:
                self._backend.cancel(key)

    def _next(self) -> _Call | None:
        """The oldest call in the inbox, unless it brings weights and running requests must finish first."""
        with self._wake:
            if not self._inbox or (isinstance(self._inbox[0].work, _Exchange) and self._running and not self._pauses):
                return None
            return self._inbox.popleft()

    def _begin(self, call: _Call) -> None:
        if call.future.cancelled():
            return
        if isinstance(call.work, _Exchange):
            self._exchange(call.work, call.future)
            return
        running = _Running(call=call, version=self.policy_version)
        self._running[call.key] = running  # first, so that the caller is informed if the backend dies of this request
        try:
            self._backend.admit(call.key, call.work)
        except RequestError as error:
            del self._running[call.key]
            _hand_over([(call.future, error)])

    def _finish(self, key: int, result: Result) -> _Answer:
        running = self._running.pop(key)
        return running.call.future, (result, (running.version, self.policy_version))

    def _exchange(self, exchange: _Exchange, future: asyncio.Future[Any]) -> None:
        weights = exchange.weights
        try:
            self._backend.load(weights.tensors)
            finished = self._prove(exchange)
        except WeightSyncError as error:
            _hand_over([(future, error)])
            raise
        except Exception as error:
            failure = WeightSyncError(f"weights {weights.version} cannot be loaded: {quote_error(error)}")
            _hand_over([(future, failure)])
            raise failure from error
        self.policy_version = weights.version
        _hand_over([(future, None), *(self._finish(key, result) for key, result in finished)])

    def _prove(self, exchange: _Exchange) -> list[tuple[int, Result]]:
        """Returns the paused requests that finished meanwhile."""
        version, learner_values = exchange.weights.version, exchange.weights.probe.values
        values, finished = self._values(exchange.probe)
        for place, (ours, theirs) in enumerate(zip(values, learner_values, strict=True)):
            if not abs(ours - theirs) <= self._tolerance:  # NaN must fail, too
                raise WeightSyncError(
                    f"weights {version}: the learner computes {theirs:.6f} for probe {place}, the engine {ours:.6f} "
                    f"(tolerance {self._tolerance:g}): the engine does not serve them"
                )
        return finished

    def _values(self, probe: Sequence[ChoiceRequest | ScoreRequest]) -> tuple[list[float], list[tuple[int, Result]]]:
        """The engine's values for the probe, and the other requests that finished in the same steps."""
        places = {next(self._keys): place for place in range(len(probe))}
        for key, place in places.items():
            self._backend.admit(key, probe[place])
        values, others = [math.nan] * len(probe), []
        while places:
            for key, result in self._backend.step():
                if key not in places:
                    others.append((key, result))
                    continue
                assert not isinstance(result, SampledTokens)
                values[places.pop(key)] = result[0] if isinstance(result, tuple) else result
        return values, others

    def _end(self, reason: EngineError) -> None:
        with self._wake:
            self._ended = reason
            calls = [*(running.call for running in self._running.values()), *self._inbox]
            self._running.clear()
            self._inbox.clear()
        _hand_over([(call.future, reason) for call in calls])
        self._backend.close()


_Answer = tuple["asyncio.Future[Any]", Any]  #: a caller's future, and its result or error


def _hand_over(answers: Sequence[_Answer]) -> None:
    """Wake each event loop once, for all of its answers."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer[0].get_loop(), []).append(answer)
    for loop, answers_here in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, answers_here)


def _resolve(answers: Sequence[_Answer]) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
