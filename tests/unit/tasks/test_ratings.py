"""Ratings read from a feedback model's probabilities."""

import pytest
from tokenizers import Regex, normalizers

from rlaif.errors import ModelError
from rlaif.prompting.dialogues import HumanAssistant
from rlaif.prompting.questions import AnswerQuestion
from rlaif.prompting.tokenization import Pieces, encode
from rlaif.records import Turn
from rlaif.tasks.direct_reward import RATINGS
from rlaif.tasks.ratings import rating_ids, rating_probs
from tests.judges import Rater
from tests.tiny_models import tiny_tokenizer
from tests.tricky_tokenizers import bpe, chat

QUESTION = HumanAssistant().choice(
    AnswerQuestion(turns=(Turn(role="human", text="Why?"),), comparison="Which is kinder?", answer="Because.")
)


async def test_one_and_ten_are_separated_after_their_shared_token():
    probs = await rating_probs(Rater([0.5, *[0.05] * 8], ten=0.8), QUESTION, RATINGS)
    assert probs == pytest.approx([0.1, *[0.05] * 8, 0.4])


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer, bpe, chat])
def test_ratings_are_found_in_context(tokenizer):
    made = tokenizer()
    ids, ends = rating_ids(made, QUESTION, RATINGS)
    for rating, end in enumerate(ends, start=1):
        whole = [*encode(made, Pieces(QUESTION[:-1])), *encode(made, f"{QUESTION[-1]} {rating}")]
        assert [*ids, *end][-len(whole) :] == whole


def test_a_tokenizer_that_cannot_tell_ratings_apart_is_refused():
    blind = tiny_tokenizer()
    blind.backend_tokenizer.normalizer = normalizers.Replace(Regex("[0-9]"), "#")
    with pytest.raises(ModelError, match="no distinct next tokens"):
        rating_ids(blind, QUESTION, RATINGS)


async def test_other_scales_are_read_likewise():
    rater = Rater([0.1, 0.2, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01], ten=0.5)
    probs = await rating_probs(rater, QUESTION, (1, 2, 3, 4, 5))
    assert probs == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.1])
