import asyncio

import pytest

from rlaif.errors import WaitTimeoutError
from rlaif.stages.reinforcement.waits import Waits


async def test_a_deadlock_names_both_halves():
    waits = Waits(0.3)
    halves = [waits("score", "samples of batch 4", asyncio.Queue().get())]
    halves.append(waits("learn", "scored batch 3", asyncio.Queue().get()))
    first, _ = await asyncio.gather(*halves, return_exceptions=True)
    assert isinstance(first, WaitTimeoutError)
    assert str(first) == "score waited 0.3 s for samples of batch 4; meanwhile waiting: learn for scored batch 3"


async def test_what_arrives_is_passed_on_and_a_foreign_timeout_stays_itself():
    async def slow() -> None:
        raise TimeoutError("of something else")

    waits, queue = Waits(5), asyncio.Queue()
    queue.put_nowait(7)
    assert await waits("score", "a batch", queue.get()) == 7
    with pytest.raises(TimeoutError, match="something else") as found:
        await waits("score", "a batch", slow())
    assert not isinstance(found.value, WaitTimeoutError)
