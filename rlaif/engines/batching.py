"""The thread that drives a batching engine, and the coroutines that wait for it.

Each caller puts a request into the inbox and awaits a future. One thread admits what is in the inbox, steps the
backend, and hands everything that finished in a step to the event loop in one wake-up. With nothing to do it sleeps.

New weights are announced through the same inbox and then come in buckets, while nothing else is served;
``on_new_weights`` says what happens to running requests. ``finish``: the announcement is a barrier. Earlier requests
finish first, under the old version; later ones start under the new version; no completion mixes versions. ``pause``:
running requests are paused between two steps while the weights come, and continue under the new ones. The backend
recomputes what it had cached for them, so each token's log-probability is that of one version, given everything before
it. Such a completion ends in a later version than it started in.

This module knows nothing of models, sampling, vLLM or torch. The backend does.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import TimeoutError as ThreadTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.config.schema import PoolSettings
from rlaif.engines.backend import Backend, Result, SampledTokens
from rlaif.engines.models import ServedModel, read_model
from rlaif.engines.proof import check_probe
from rlaif.engines.requests import (
    LogprobsRequest,
    Request,
    ScoreRequest,
    answer_text,
    check_bucket,
    check_complete,
    check_coverage,
    check_finite,
    choice_request,
    generate_request,
    probe_requests,
    score_request,
)
from rlaif.errors import EngineError, ModelError, RequestError, WaitTimeoutError, WeightSyncError, quote_error
from rlaif.interfaces import WeightBucket, WeightsHeader
from rlaif.places.traffic import Traffic, moved_bytes
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import Completion, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CLOSE_TIMEOUT_S = 60.0
LOADING_POLL_S = 1.0


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
class _Begin:
    """New weights are to come. ``checksums``: of those that have, by name."""

    header: WeightsHeader
    probe: Sequence[LogprobsRequest | ScoreRequest]
    checksums: dict[str, int] = field(default_factory=dict)


class _Serve:
    """All of the new weights have come."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    key: int
    work: Request | _Begin | WeightBucket | _Serve
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
        self._dtype = settings.dtype
        self._sync_timeout_s = settings.start_timeout_s
        self._pauses = settings.on_new_weights == "pause"
        self._keys = itertools.count()
        self._wake = threading.Condition()
        self._inbox: deque[_Call] = deque()
        self._arriving: deque[_Call] = deque()  # buckets of new weights, and that they are complete
        self._taking: _Begin | None = None  # new weights that are on their way, while nothing is served
        self._given_up = False  # whether somebody has begun with new weights and waits no more
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

    async def begin_weights(self, header: WeightsHeader) -> None:
        """As ``Engine.begin_weights``; running requests finish first or pause, later ones wait.

        Each step of new weights (this, a bucket, the proof) has ``start_timeout_s``. Raises WaitTimeoutError.
        """
        probe = probe_requests(self._model, self.policy_version, header)
        check_coverage(self._model, header)
        await self._order(_Begin(header=header, probe=probe), f"to stop for weights {header.version}")

    async def load_weights(self, bucket: WeightBucket) -> None:
        await self._order(bucket, "to load a bucket of new weights")

    async def serve_weights(self) -> None:
        await self._order(_Serve(), "to prove new weights")

    async def _order(self, work: _Begin | WeightBucket | _Serve, what: str) -> None:
        try:
            await asyncio.wait_for(self._ask(work), self._sync_timeout_s)
        except TimeoutError as error:
            self._give_up()
            raise WaitTimeoutError(f"waited {self._sync_timeout_s:g} s for {self.model_version} {what}") from error
        except asyncio.CancelledError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        with self._wake:
            self._given_up = True
            self._wake.notify()

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

    async def _ask(self, work: Request | _Begin | WeightBucket | _Serve) -> Any:
        call = _Call(key=next(self._keys), work=work, future=asyncio.get_running_loop().create_future())
        with self._wake:
            if self._ended is not None:
                raise EngineError(str(self._ended))
            (self._arriving if isinstance(work, WeightBucket | _Serve) else self._inbox).append(call)
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
            while not (self._has_calls() or self._cancelled or self._given_up or self._closing):
                self._wake.wait()
            return not self._closing

    def _has_calls(self) -> bool:
        return bool(self._arriving if self._taking else self._inbox or self._running)

    def _round(self) -> None:
        self._drop_cancelled()
        self._drop_weights()
        while (call := self._next()) is not None:
            self._begin(call)
        if self._running and not self._taking:
            _hand_over([self._finish(key, result) for key, result in self._backend.step()])

    def _drop_cancelled(self) -> None:
        with self._wake:
            keys, self._cancelled = self._cancelled, []
        for key in keys:
            if self._running.pop(key, None) is not None:
                self._backend.cancel(key)

    def _drop_weights(self) -> None:
        with self._wake:
            given_up, self._given_up = self._given_up, False
        if given_up and self._taking:
            raise WeightSyncError(f"weights {self._taking.header.version} were given up before they were complete")

    def _next(self) -> _Call | None:
        """The oldest call in the inbox, unless it announces weights and running requests must finish first; while
        weights are on their way, only what belongs to them."""
        with self._wake:
            if self._taking:
                return self._arriving.popleft() if self._arriving else None
            if not self._inbox or (isinstance(self._inbox[0].work, _Begin) and self._running and not self._pauses):
                return None
            return self._inbox.popleft()

    def _begin(self, call: _Call) -> None:
        if call.future.cancelled():
            return
        if isinstance(call.work, _Begin):
            self._taking = call.work
            _hand_over([(call.future, None)])
            return
        if isinstance(call.work, WeightBucket | _Serve):
            self._take(call.work, call.future)
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

    def _take(self, work: WeightBucket | _Serve, future: asyncio.Future[Any]) -> None:
        """One step of the new weights. An engine that fails at it serves nothing more."""
        assert self._taking is not None
        try:
            finished = self._load(work) if isinstance(work, WeightBucket) else self._prove()
        except WeightSyncError as error:
            _hand_over([(future, error)])
            raise
        except Exception as error:
            failure = WeightSyncError(f"weights {self._taking.header.version} cannot be loaded: {quote_error(error)}")
            _hand_over([(future, failure)])
            raise failure from error
        _hand_over([(future, None), *(self._finish(key, result) for key, result in finished)])

    def _load(self, bucket: WeightBucket) -> list[tuple[int, Result]]:
        assert self._taking is not None
        check_bucket(self._taking.header, bucket)
        self._backend.load(bucket.tensors)
        self._taking.checksums.update(bucket.checksums)
        return []

    def _prove(self) -> list[tuple[int, Result]]:
        """Serve the new weights. Returns the paused requests that finished meanwhile."""
        assert self._taking is not None
        header, probe, checksums = self._taking.header, self._taking.probe, self._taking.checksums
        check_complete(header, checksums)
        self._backend.finish_loading(checksums)
        values, finished = self._values(probe)
        check_probe(header, values, self._dtype)
        self._taking = None
        self.policy_version = header.version
        return finished

    def _values(
        self, probe: Sequence[LogprobsRequest | ScoreRequest]
    ) -> tuple[list[tuple[float, ...]], list[tuple[int, Result]]]:
        """The engine's values for the probe, and the other requests that finished in the same steps."""
        places = {next(self._keys): place for place in range(len(probe))}
        for key, place in places.items():
            self._backend.admit(key, probe[place])
        values: list[tuple[float, ...]] = [()] * len(probe)
        others = []
        while places:
            for key, result in self._backend.step():
                if key not in places:
                    others.append((key, result))
                    continue
                assert not isinstance(result, SampledTokens)
                values[places.pop(key)] = result if isinstance(result, tuple) else (result,)
        return values, others

    def _end(self, reason: EngineError) -> None:
        with self._wake:
            self._ended = reason
            calls = [*(running.call for running in self._running.values()), *self._inbox, *self._arriving]
            for held in (self._running, self._inbox, self._arriving):
                held.clear()
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
