"""What an engine's actor makes of what its rows raise: with a real engine, without Ray."""

import math
from dataclasses import dataclass

import torch

from actors.pool.engine_actor import EngineActor
from rlaif.config.schema import PoolSettings
from rlaif.interfaces import AnyEngine
from tests.tiny_models import MAX_LENGTH, saved, tiny_lm


@dataclass(frozen=True)
class Choose:
    """The task: token ids in, the first letter's log-probability out."""

    async def __call__(self, engine: AnyEngine, ids: tuple[int, ...]) -> float:
        return (await engine.choice_logprobs(ids, (40, 41)))[0]


async def test_a_row_that_meets_nan_fails_alone_and_its_engine_goes_on(tmp_path):
    """The embedding of one token is not finite, so that only rows with this token are lost."""
    model = tiny_lm(0, tied=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = math.nan
    actor = EngineActor()
    await actor.open("labeller", saved(model, tmp_path), PoolSettings(engine="hf", max_length=MAX_LENGTH))
    rows = [(3, 4), (3, 7), (), (5, 6)]
    try:
        lists = [finished async for finished in actor.run(Choose(), rows)]
    finally:
        await actor.close()
    outcomes = {place: (record, failure) for finished in lists for place, record, failure in finished}
    assert sorted(outcomes) == [0, 1, 2, 3]
    assert all(math.isfinite(outcomes[place][0]) for place in (0, 3))
    assert "not finite" in outcomes[1][1].cause and outcomes[1][1].fault == "outside"
    assert "empty" in outcomes[2][1].cause and outcomes[2][1].fault == "row"
