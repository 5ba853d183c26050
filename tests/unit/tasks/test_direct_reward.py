"""Rewards directly from the feedback model (Lee et al., direct RLAIF)."""

import math

import pytest
from tokenizers import Regex, normalizers

from rlaif.config.schema import Labelling, PoolSettings, SamplingSettings
from rlaif.constitution.principles import load_constitution
from rlaif.engines import open_engine
from rlaif.errors import ModelError, RequestError
from rlaif.ids import group_id, sample_id
from rlaif.prompting.dialogues import HumanAssistant
from rlaif.prompting.questions import RatingQuestion
from rlaif.prompting.tokenization import Pieces, encode
from rlaif.records import Prompt, Turn
from rlaif.tasks.direct_reward import RateSample, rating_ids, rating_probs, reward_of
from rlaif.tasks.sampling import Draw, RollOut
from tests.tiny_models import tiny_tokenizer
from tests.tricky_tokenizers import bpe, chat

QUESTION = HumanAssistant().choice(
    RatingQuestion(turns=(Turn(role="human", text="Why?"),), comparison="Which is kinder?", answer="Because.")
)


class Rater:
    """A byte-level feedback model: says 1 .. 9 with probabilities ``firsts``, and a 0 after the 1 with ``ten``."""

    tokenizer = tiny_tokenizer()
    max_length = 4096

    def __init__(self, firsts: list[float], ten: float) -> None:
        self.by_digit = dict(zip("123456789", firsts, strict=True))
        self.ten = ten

    async def choice_logprobs(self, prompt_ids, choice_ids):
        said = self.tokenizer.decode(list(prompt_ids)).rpartition("The rating is:")[2].strip()
        digits = [self.tokenizer.decode([id]) for id in choice_ids]
        probs = [self.ten] if said == "1" else [self.by_digit[d] for d in digits]
        return tuple(math.log(p) for p in probs)


@pytest.mark.parametrize(("probs", "reward"), [([0] * 9 + [1], 1), ([1] + [0] * 9, -1), ([0.05] * 10, 0)])
def test_the_mean_rating_on_the_scale_from_minus_one_to_one(probs, reward):
    assert reward_of(probs) == pytest.approx(reward)


async def test_one_and_ten_are_separated_after_their_shared_token():
    probs = await rating_probs(Rater([0.5, *[0.05] * 8], ten=0.8), QUESTION)
    assert probs == pytest.approx([0.1, *[0.05] * 8, 0.4])


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer, bpe, chat])
def test_ratings_are_found_in_context(tokenizer):
    made = tokenizer()
    ids, ends = rating_ids(made, QUESTION)
    for rating, end in enumerate(ends, start=1):
        whole = [*encode(made, Pieces(QUESTION[:-1])), *encode(made, f"{QUESTION[-1]} {rating}")]
        assert [*ids, *end][-len(whole) :] == whole


def test_a_tokenizer_that_cannot_tell_ratings_apart_is_refused():
    blind = tiny_tokenizer()
    blind.backend_tokenizer.normalizer = normalizers.Replace(Regex("[0-9]"), "#")
    with pytest.raises(ModelError, match="no distinct next tokens"):
        rating_ids(blind, QUESTION)


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
