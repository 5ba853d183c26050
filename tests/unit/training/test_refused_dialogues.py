"""A dialogue that a chat template refuses is one row that is left out, never the end of a stage."""

from dataclasses import replace

from rlaif.config.schema import Supervision
from rlaif.records import Answer, Status, Turn
from rlaif.training.training_rows import LeftOut, SFTBuilder
from tests.unit.prompting.chat_tokenizers import GEMMA, with_template

ALTERNATING = with_template(GEMMA)  # as many templates do, it requires roles to alternate


def said(*roles: str) -> tuple[Turn, ...]:
    return tuple(Turn(role=role, text="Hi") for role in roles)


def test_a_helpful_sample_is_left_out():
    sample = Answer(
        id="g:1#0",
        source_file="g",
        source_row=1,
        status=Status.OK,
        error=None,
        seconds=0.0,
        seed=0,
        model_version="m",
        axis="helpful",
        snapshot="helpful_only",
        prompt=said("human"),
        text="sure",
        token_ids=(),
        finish_reason="stop",
    )
    refused = replace(sample, id="g:2#0", prompt=said("assistant", "human"))
    builder = SFTBuilder(tokenizer=ALTERNATING, dialogue_format="chat_template", settings=Supervision())
    first, second = builder.from_samples([sample, refused])
    assert not isinstance(first, LeftOut)
    assert isinstance(second, LeftOut) and "refuses the roles assistant, user" in second.cause
