"""Refusals are watched while the policy is trained."""

from rlaif.evaluation.refusals.watch import refusal_metrics
from rlaif.records import Completion, RolloutSample, Turn
from tests.unit.provenance import PROVENANCE

REFUSAL = "I'm sorry, but I can't help with that."
HELP = "Open the terminal and type the name of the file."


def sample(text, axis):
    completion = Completion(
        token_ids=(1,),
        logprobs=(-1.0,),
        text=text,
        finish_reason="stop",
        policy_version_start=0,
        policy_version_end=0,
    )
    return RolloutSample(
        **{**PROVENANCE, "id": "a", "axis": axis},
        prompt=(Turn(role="human", text="How do I open it?"),),
        prompt_ids=(1,),
        completion=completion,
        truncated=False,
    )


def test_each_axis_has_its_share_of_refusals():
    batch = [sample(REFUSAL, "red_team"), sample(HELP, "red_team"), sample(HELP, "helpful")]
    assert refusal_metrics(batch) == {"reinforce/refusals/red_team": 0.5, "reinforce/refusals/helpful": 0.0}


def test_what_says_nothing_is_no_answer():
    unfinished = sample("<think>I could", "helpful")
    assert refusal_metrics([sample("", "helpful"), unfinished]) == {}
    assert refusal_metrics([sample(" ", "helpful"), sample(REFUSAL, "helpful")]) == {"reinforce/refusals/helpful": 1.0}


def test_a_thought_is_not_what_was_said():
    thought = sample(f"<think>{REFUSAL}</think>{HELP}", "helpful")
    assert refusal_metrics([thought]) == {"reinforce/refusals/helpful": 0.0}
