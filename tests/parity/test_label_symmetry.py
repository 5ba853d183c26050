"""On a real engine, a swapped pair has the complementary label: plain, as an ensemble, with reasoning and a clamp."""

import asyncio
from dataclasses import replace

import pytest

from benchmarks.slot_bias import pairs
from rlaif.config.schema import Labelling, PoolSettings, Reasoning
from rlaif.constitution.principles import load_constitution
from rlaif.engines import open_engine
from rlaif.records import Status
from rlaif.tasks.labelling import Label

MODES = {
    "plain": Labelling(),
    "logit_mean": Labelling(aggregation="logit_mean"),
    "ensemble": Labelling(principles=4),
    "clamp": Labelling(reasoning=Reasoning(mode="greedy", max_tokens=24), min_letter_mass=0.0),
}


@pytest.mark.parametrize("mode", MODES)
async def test_the_swapped_pair_gets_the_complement(miniature, mode):
    settings = PoolSettings(max_length=1024, threads=2, kv_cache_gib=0.25)
    engine = open_engine("labeller", miniature.path("feedback"), settings)
    task = Label(
        seed=0,
        constitution=load_constitution("sixteen_principles"),
        settings=MODES[mode],
        dialogue_format="human_assistant",
    )
    made = [pair for pair, _ in pairs(20)]
    try:
        labels = await asyncio.gather(*(task(engine, pair) for pair in made))
        swapped = await asyncio.gather(*(task(engine, replace(pair.swap(), id=pair.id)) for pair in made))
    finally:
        await engine.close()
    assert {label.status for label in labels} <= {Status.OK, Status.TIE}
    for one, other in zip(labels, swapped, strict=True):
        assert one.prob == pytest.approx(1 - other.prob, abs=1e-5)
