"""The engine thread by itself, over a backend that counts instead of computing."""

import asyncio
import threading
import time

import numpy as np
import pytest

from rlaif.config.schema import PoolSettings
from rlaif.engines.backend import SampledTokens
from rlaif.engines.batching import BatchingEngine
from rlaif.engines.models import ServedModel
from rlaif.engines.requests import GenerateRequest
from rlaif.errors import EngineError, WaitTimeoutError, WeightSyncError
from rlaif.interfaces import Probe, WeightBucket, Weights, WeightsHeader
from rlaif.records import Sampling
from tests.tiny_models import send, tiny_tokenizer

MODEL = ServedModel(
    path="counter",
    version="counter@0",
    kind="language",
    vocab_size=259,
    max_length=64,
    eos_id=257,
    end_ids=frozenset({257}),
    shapes={"weight": (1,)},
)
POISON = 13  #: a prompt that starts with it breaks the backend as it runs
VENOM = 14  #: ... as it is admitted


class Counter:
    """Every request takes as many steps as it asks tokens for; a token's log-probability is the weight."""

    def __init__(self, stands_still: bool = False) -> None:
        self.prefix_hits = (0, 0)
        self.stands_still = stands_still  # for new weights
        self.left: dict[int, int] = {}
        self.requests: dict[int, object] = {}
        self.weight = -1.0
        self.num_steps = 0
        self.largest = 0
        self.closed = False

    def admit(self, key, request) -> None:
        if request.prompt_ids[0] == VENOM:
            raise ZeroDivisionError("the backend broke")
        self.requests[key] = request
        self.left[key] = request.sampling.max_tokens if isinstance(request, GenerateRequest) else 1

    def cancel(self, key) -> None:
        del self.left[key]

    def step(self):
        self.num_steps += 1
        self.largest = max(self.largest, len(self.left))
        if any(self.requests[key].prompt_ids[0] == POISON for key in self.left):
            raise ZeroDivisionError("the backend broke")
        time.sleep(0.001)
        self.left = {key: left - 1 for key, left in self.left.items()}
        done = [key for key, left in self.left.items() if left == 0]
        for key in done:
            del self.left[key]
        return [(key, self._result(self.requests[key])) for key in done]

    def _result(self, request):
        if not isinstance(request, GenerateRequest):
            return (self.weight,)
        num = request.sampling.max_tokens
        return SampledTokens(token_ids=(65,) * num, logprobs=(self.weight,) * num, finish_reason="length")

    def load(self, tensors) -> None:
        assert self.stands_still or not self.left, "weights change under running requests"
        self.weight = float(tensors["weight"][0])

    def finish_loading(self, checksums) -> None:
        self.proven = dict(checksums)

    def close(self) -> None:
        self.closed = True


class Slow(Counter):
    def load(self, tensors) -> None:
        time.sleep(0.2)
        super().load(tensors)


def opened(backend, **settings) -> BatchingEngine:
    return BatchingEngine(lambda: backend, MODEL, tiny_tokenizer(), PoolSettings(**settings))


def ask(engine, num: int = 3, first: int = 65):
    return asyncio.ensure_future(engine.generate([first], Sampling(max_tokens=num, temperature=1.0, seed=0)))


def weights(value: float, version: int = 1, probe: float | None = None) -> Weights:
    probe = Probe(token_ids=((1, 2),), values=((value if probe is None else probe,),))
    header = WeightsHeader(version=version, shapes={"weight": (1,)}, num_buckets=1, probe=probe)
    return Weights(
        header=header, buckets=[WeightBucket(tensors={"weight": np.array([value])}, checksums={"weight": 0})]
    )


async def test_requests_run_together_and_the_idle_thread_sleeps():
    backend = Counter()
    engine = opened(backend)
    await asyncio.gather(*(ask(engine, 10) for _ in range(50)))
    assert backend.largest == 50
    assert backend.num_steps <= 12
    steps = backend.num_steps
    await asyncio.sleep(0.05)
    assert backend.num_steps == steps
    await engine.close()
    assert backend.closed


async def test_weights_wait_for_what_runs_and_later_requests_wait_for_them():
    engine = opened(Counter())
    before = ask(engine, 20)
    await asyncio.sleep(0.005)
    update = asyncio.ensure_future(send(engine, weights(-2.0)))
    await asyncio.sleep(0)
    after = ask(engine, 2)
    await update
    assert before.done()
    assert (before.result().logprobs[-1], before.result().policy_version_end) == (-1.0, 0)
    assert ((await after).logprobs, (await after).policy_version_start) == ((-2.0, -2.0), 1)
    await engine.close()


async def test_paused_requests_go_on_under_the_new_weights():
    engine = opened(Counter(stands_still=True), on_new_weights="pause")
    before = ask(engine, 60)
    await asyncio.sleep(0.005)
    await send(engine, weights(-2.0))
    assert not before.done()
    after = await ask(engine, 2)
    assert ((await before).policy_version_start, (await before).policy_version_end) == (0, 1)
    assert (after.policy_version_start, after.policy_version_end) == (1, 1)
    await engine.close()


async def test_paused_requests_that_finish_during_the_probe_come_back():
    backend = Counter(stands_still=True)
    engine = opened(backend, on_new_weights="pause")
    running = [ask(engine, num) for num in range(1, 40)]
    await asyncio.sleep(0.005)
    await asyncio.wait_for(send(engine, weights(-2.0)), 5)
    ends = {completion.policy_version_end for completion in await asyncio.gather(*running)}
    assert ends <= {0, 1}
    assert not backend.left
    await engine.close()


async def test_paused_requests_fail_with_weights_that_are_not_served():
    engine = opened(Counter(stands_still=True), on_new_weights="pause")
    running = [ask(engine, num) for num in (20, 60)]
    await asyncio.sleep(0.005)
    with pytest.raises(WeightSyncError):
        await send(engine, weights(-2.0, probe=-1.0))
    for result in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(result, EngineError)
    await engine.close()


@pytest.mark.parametrize("deadly", [POISON, VENOM])
async def test_the_death_of_the_backend_fails_waiting_and_later_requests(deadly):
    backend = Counter()
    engine = opened(backend)
    waiting = [ask(engine, 60) for _ in range(5)]
    await asyncio.sleep(0.005)
    waiting += [ask(engine, 5, first=deadly), ask(engine, 5)]
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, EngineError)
        assert "counter@0 died: ZeroDivisionError: the backend broke" in str(result)
    with pytest.raises(EngineError, match="died"):
        await ask(engine)
    await engine.close()  # joins the thread, which informs its callers before it closes the backend
    assert backend.closed


async def test_a_probe_that_differs_or_is_nan_ends_the_engine():
    for value in (-1.9, float("nan")):
        engine = opened(Counter())
        with pytest.raises(WeightSyncError, match="do not compute the same"):
            await send(engine, weights(-2.0, probe=value))
        with pytest.raises(EngineError, match="must be replaced"):
            await ask(engine)
        await engine.close()


async def test_a_difference_within_the_tolerance_passes():
    engine = opened(Counter())
    await send(engine, weights(-2.0, probe=-2.0009))
    assert engine.policy_version == 1
    await engine.close()


async def test_a_cancelled_request_leaves_the_backend():
    backend = Counter()
    engine = opened(backend)
    long, short = ask(engine, 60), ask(engine, 20)
    await asyncio.sleep(0.005)
    long.cancel()
    await short
    assert not backend.left
    await engine.close()


async def test_weights_that_never_get_their_turn_time_out():
    engine = opened(Counter(), start_timeout_s=0.01)
    running = ask(engine, 60)
    await asyncio.sleep(0)
    with pytest.raises(WaitTimeoutError, match=r"waited 0\.01 s for counter@0 to stop for weights 1"):
        await send(engine, weights(-2.0))
    assert (await running).policy_version_end == 0
    assert (await ask(engine)).policy_version_end == 0
    await engine.close()


@pytest.mark.parametrize("how", ["cancelled", "too late"])
async def test_weights_that_are_given_up_half_way_end_the_engine(how):
    """Half of new weights must not be served."""
    engine = opened(Slow(), start_timeout_s=0.05)
    new = weights(-2.0)
    await engine.begin_weights(new.header)
    waiting = ask(engine)
    loading = asyncio.ensure_future(engine.load_weights(new.buckets[0]))
    await asyncio.sleep(0.01)
    if how == "cancelled":
        loading.cancel()
    with pytest.raises((asyncio.CancelledError, WaitTimeoutError)):
        await loading
    with pytest.raises(EngineError, match="weights 1 were given up before they were complete"):
        await waiting
    await engine.close()


async def test_nothing_is_served_while_weights_are_on_their_way():
    backend = Counter(stands_still=True)
    engine = opened(backend, on_new_weights="pause")
    running = ask(engine, 60)
    await asyncio.sleep(0.005)
    new = weights(-2.0)
    await engine.begin_weights(new.header)
    later, steps = ask(engine), backend.num_steps
    await asyncio.sleep(0.02)
    assert backend.num_steps == steps
    await engine.load_weights(new.buckets[0])
    await engine.serve_weights()
    assert ((await running).policy_version_end, (await later).policy_version_start) == (1, 1)
    await engine.close()


def test_a_model_that_does_not_load():
    def broken():
        raise MemoryError("not enough")

    with pytest.raises(EngineError, match="counter cannot be loaded: MemoryError: not enough"):
        BatchingEngine(broken, MODEL, tiny_tokenizer(), PoolSettings())


def test_a_model_that_takes_too_long_to_load():
    """It is closed again when it comes after all."""
    release, late = threading.Event(), Counter()

    def slow():
        release.wait(10)
        return late

    with pytest.raises(WaitTimeoutError, match=r"waited for counter to load, and nothing was read for 0\.05 s"):
        BatchingEngine(slow, MODEL, tiny_tokenizer(), PoolSettings(start_timeout_s=0.05))
    release.set()
    for _ in range(100):
        time.sleep(0.01)
        if late.closed:
            break
    assert late.closed


def test_a_model_may_load_for_as_long_as_something_is_read(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(4 << 20))

    def slow():
        for _ in range(15):
            (tmp_path / "weights").read_bytes()
            time.sleep(0.1)
        return Counter()

    started = time.monotonic()
    BatchingEngine(slow, MODEL, tiny_tokenizer(), PoolSettings(start_timeout_s=0.5))
    assert time.monotonic() - started > 1.5, "three times as long"
