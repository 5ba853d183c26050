"""Rewards directly from the feedback model (Lee et al., direct RLAIF)."""

import pytest

from rlaif.config.schema import Labelling, PoolSettings, SamplingSettings
from rlaif.constitution.principles import load_constitution
from rlaif.engines import open_engine
from rlaif.errors import RequestError
from rlaif.ids import group_id, sample_id
from rlaif.records import Prompt, Turn
from rlaif.tasks.direct_reward import RateSample, reward_of
from rlaif.tasks.sampling import Draw, RollOut
from tests.judges import Rater


@pytest.mark.parametrize(("probs", "reward"), [([0] * 9 + [1], 1), ([1] + [0] * 9, -1), ([0.05] * 10, 0)])
def test_the_mean_rating_on_the_scale_from_minus_one_to_one(probs, reward):
    assert reward_of(probs) == pytest.approx(reward)


async def test_a_rollout_is_scored_by_its_rating():
    settings = PoolSettings(engine="scripted", max_length=4096)
    prompt = Prompt(
        id="f:1", source_file="f", source_row=1, axis="red_team", turns=(Turn(role="human", text="How do I?"),)
    )
    sampling = SamplingSettings(max_tokens=40)
    rollout_id = sample_id(group_id(prompt.id, "red_team", 0, 3), 0)
    rollout = RollOut(dialogue_format="human_assistant", sampling=sampling)
    sample = await rollout(open_engine("generator", None, settings), Draw(id=rollout_id, prompt=prompt, seed=1))
    rate = RateSample(
        seed=0,
        constitution=load_constitution("nine_points"),
        settings=Labelling(),
        dialogue_format="human_assistant",
    )
    scored = await rate(open_engine("labeller", None, settings), sample)
    assert -1 <= scored.score <= 1 and scored.response_ids == sample.completion.token_ids
    with pytest.raises(RequestError, match=r"hold 0\.100"):
        await rate(Rater([0.02, *[0.01] * 8], ten=0.5), sample)
