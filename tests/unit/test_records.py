"""Records share their first columns and are made of one another without losing or inventing any."""

import pytest

from rlaif.records import (
    Answer,
    Comparison,
    Completion,
    Preference,
    Prompt,
    RevisionChain,
    Rollout,
    RolloutSample,
    ScoredSample,
    Status,
    Turn,
)
from rlaif.storage.record_schema import arrow_schema

PROMPT = Prompt(id="f:1", source_file="f", source_row=1, axis="red_team", turns=(Turn(role="human", text="q"),))
MADE = {"status": Status.OK, "error": None, "seconds": 0.5, "seed": 7, "model_version": "m@1"}
PROVENANCE = ["id", "source_file", "source_row", "status", "error", "seconds", "seed", "model_version", "axis"]


@pytest.mark.parametrize(
    ("record_type", "own"),
    [
        (RevisionChain, "prompt response rounds token_ids truncated"),
        (
            Comparison,
            "prompt prompt_ids answer_1 answer_2 token_ids_1 token_ids_2 policy_version truncated gold",
        ),
        (
            Preference,
            "prompt prompt_ids answer_1 answer_2 token_ids_1 token_ids_2 policy_version prob aggregation judgements "
            "constitution_hash template_version truncated gold",
        ),
        (
            Rollout,
            "prompt_ids response_ids logprobs finish_reason policy_version_start policy_version_end "
            "preference_model_version score kl advantage_mean truncated",
        ),
        (Answer, "snapshot prompt text token_ids finish_reason truncated"),
    ],
)
def test_columns_of_a_table_begin_with_its_provenance(record_type, own):
    assert arrow_schema(record_type).names == [*PROVENANCE, *own.split()]


def comparison() -> Comparison:
    return Comparison.of(
        PROMPT,
        **MADE,
        prompt=PROMPT.turns,
        prompt_ids=(1,),
        answer_1="a",
        answer_2="b",
        token_ids_1=(2,),
        token_ids_2=(3,),
        policy_version=4,
        truncated=True,
        gold=0.75,
    )


def test_a_label_has_its_pair_and_its_own_making():
    pair = comparison()
    own = {"status": Status.TIMEOUT, "error": "late", "seconds": 9.0, "seed": 8, "model_version": "judge@2"}
    label = Preference.of(
        pair,
        **own,
        prob=None,
        aggregation="logit_mean",
        judgements=(),
        constitution_hash="c",
        template_version="t",
        truncated=False,
    )
    carried = ("id", "source_file", "source_row", "axis", "prompt", "prompt_ids", "answer_1", "answer_2")
    for name in (*carried, "token_ids_1", "token_ids_2", "policy_version", "gold"):
        assert getattr(label, name) == getattr(pair, name), name
    assert {name: getattr(label, name) for name in own} == own and not label.truncated


@pytest.mark.parametrize("name", list(MADE))
def test_what_made_a_record_is_never_taken_from_another(name):
    made = {key: value for key, value in MADE.items() if key != name}
    with pytest.raises(TypeError, match=name):
        Preference.of(
            comparison(),
            **made,
            prob=0.5,
            aggregation="logit_mean",
            judgements=(),
            constitution_hash="c",
            template_version="t",
        )


def test_a_rollout_has_its_sample_and_its_score():
    completion = Completion(
        token_ids=(5, 6),
        logprobs=(-0.5, -0.25),
        text="a",
        finish_reason="stop",
        policy_version_start=3,
        policy_version_end=4,
    )
    sample = RolloutSample.of(
        PROMPT, **MADE, prompt=PROMPT.turns, prompt_ids=(1, 2), completion=completion, truncated=True
    )
    scored = ScoredSample.of(sample, score=1.5, preference_model_version=2)
    assert Rollout.from_scored(sample, scored, kl=0.1, advantage_mean=-0.2) == Rollout(
        id="f:1",
        source_file="f",
        source_row=1,
        axis="red_team",
        **MADE,
        prompt_ids=(1, 2),
        response_ids=(5, 6),
        logprobs=(-0.5, -0.25),
        finish_reason="stop",
        policy_version_start=3,
        policy_version_end=4,
        preference_model_version=2,
        score=1.5,
        kl=0.1,
        advantage_mean=-0.2,
        truncated=True,
    )
