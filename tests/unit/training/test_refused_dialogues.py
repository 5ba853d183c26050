"""A dialogue that a chat template refuses is one row that is left out, never the end of a stage."""

from dataclasses import replace

from rlaif.config.schema import Supervision
from rlaif.records import Answer, Turn
from rlaif.training.training_rows import LeftOut, SFTBuilder
from tests.unit.prompting.chat_tokenizers import GEMMA, with_template
from tests.unit.provenance import PROVENANCE

ALTERNATING = with_template(GEMMA)  # as many templates do, it requires roles to alternate


def said(*roles: str) -> tuple[Turn, ...]:
    return tuple(Turn(role=role, text="Hi") for role in roles)


def test_a_helpful_sample_is_left_out():
    sample = Answer(
        id="g:1#0",
        **PROVENANCE,
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
