import asyncio
import math

import pytest

from rlaif.config.schema import PoolSettings, ScriptedEngineSettings
from rlaif.engines import open_engine
from rlaif.engines.scripted import quality
from rlaif.errors import ModelError, RequestError
from rlaif.prompting.dialogues import HumanAssistant
from rlaif.prompting.questions import DEFAULT, LETTERS, Question
from rlaif.prompting.tokenization import letter_ids, prompt_ids
from rlaif.records import Sampling, Turn

TURNS = (Turn(role="human", text="How do I open a lock?"),)
COMPARISON = "Which answer is less harmful?"


def opened(role: str = "labeller", **script) -> object:
    return open_engine(role, None, PoolSettings(engine="scripted", scripted=ScriptedEngineSettings(**script)))


async def log_odds(engine, slot_a: str, slot_b: str) -> float:
    question = Question(template=DEFAULT, turns=TURNS, comparison=COMPARISON, slot_a=slot_a, slot_b=slot_b)
    ids, letters = letter_ids(engine.tokenizer, HumanAssistant().choice(question), LETTERS)
    logprob_a, logprob_b = await engine.choice_logprobs(ids, letters)
    assert math.exp(logprob_a) + math.exp(logprob_b) == pytest.approx(0.98)
    return logprob_a - logprob_b


async def test_without_bias_the_order_does_not_matter():
    engine = opened()
    forward = await log_odds(engine, "No.", "Pick it\nwith a pin.")
    backward = await log_odds(engine, "Pick it\nwith a pin.", "No.")
    assert forward == pytest.approx(-backward)
    assert forward == pytest.approx(quality("No.") - quality("Pick it\nwith a pin."))


async def test_slot_bias_is_what_both_orders_share():
    engine = opened(slot_bias=0.7)
    forward = await log_odds(engine, "one", "two")
    backward = await log_odds(engine, "two", "one")
    assert (forward + backward) / 2 == pytest.approx(0.7)


async def test_failures_come_at_their_rate_and_pass_on_another_try():
    engine = opened("generator", failure_rate=0.25)
    prompt = prompt_ids(engine.tokenizer, "hello")
    sampling = Sampling(max_tokens=8, temperature=1.0, seed=0)
    results = [await asyncio.gather(engine.generate(prompt, sampling), return_exceptions=True) for _ in range(400)]
    failed = [isinstance(result, RequestError) for (result,) in results]
    assert 70 < sum(failed) < 130
    assert len({result.token_ids for (result,) in results if not isinstance(result, RequestError)}) == 1


async def test_latency_is_spent_side_by_side():
    engine = opened("generator", latency_s=0.05)
    sampling = Sampling(max_tokens=8, temperature=1.0, seed=0)
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(engine.generate([65], sampling) for _ in range(20)))
    assert 0.05 <= asyncio.get_running_loop().time() - started < 0.5


async def test_no_more_requests_are_served_at_once_than_there_is_room_for():
    engine = opened("generator", latency_s=0.02, concurrency=2)
    sampling = Sampling(max_tokens=8, temperature=1.0, seed=0)
    order: list[int] = []

    async def ask(number: int) -> None:
        await engine.generate([65], sampling)
        order.append(number)

    started = asyncio.get_running_loop().time()
    await asyncio.gather(*map(ask, range(10)))
    assert asyncio.get_running_loop().time() - started >= 0.099, "five turns of two"
    assert order == sorted(order)


async def test_answers_are_the_same_in_every_engine():
    first, second = opened("generator"), opened("generator")
    sampling = Sampling(max_tokens=80, temperature=1.0, seed=3)
    assert await first.generate([65, 66], sampling) == await second.generate([65, 66], sampling)


def test_a_model_directory_without_tokenizer(tmp_path):
    with pytest.raises(ModelError, match=r"generator\.model=.*no tokenizer\.json"):
        open_engine("generator", tmp_path, PoolSettings(engine="scripted"))
    with pytest.raises(ModelError, match=r"generator\.model: engine vllm needs a model"):
        open_engine("generator", None, PoolSettings(engine="vllm"))
