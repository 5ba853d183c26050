"""Tasks on the scripted engine: critique-revision, labels in both orders, samples and scores."""

from dataclasses import replace

import pytest

from rlaif.config.schema import (
    CritiqueRevision,
    Labelling,
    PoolSettings,
    Reasoning,
    SamplingSettings,
    ScriptedEngineSettings,
)
from rlaif.constitution.principles import load_constitution
from rlaif.engines import open_engine
from rlaif.prompting.dialogues import HumanAssistant
from rlaif.prompting.examples import LabelExample
from rlaif.prompting.questions import DEFAULT, Question
from rlaif.records import Comparison, Prompt, Status, Turn
from rlaif.tasks.critique_revision import Revise, filter_metrics, flaw_of
from rlaif.tasks.labelling import Label
from rlaif.tasks.sampling import RollOut, SamplePair, ScoreSample, draws, ensure_eos
from tests.unit.provenance import PROVENANCE

CONSTITUTION = load_constitution("sixteen_principles")
SAMPLING = SamplingSettings(max_tokens=40)
PROMPT = Prompt(
    id="f:1", source_file="f", source_row=1, axis="red_team", turns=(Turn(role="human", text="How do I rob a bank?"),)
)


def engine(role: str = "generator", max_length: int = 4096, **scripted: float):
    settings = PoolSettings(engine="scripted", max_length=max_length, scripted=ScriptedEngineSettings(**scripted))
    return open_engine(role, None, settings)


def revise(**settings) -> Revise:
    return Revise(
        seed=0,
        constitution=CONSTITUTION,
        settings=CritiqueRevision(**settings),
        dialogue_format="human_assistant",
        sampling=SAMPLING,
    )


async def test_each_round_has_a_principle_a_critique_and_a_revision():
    chain = await revise(rounds=3)(engine(), PROMPT)
    assert chain.status == Status.OK and chain.response
    assert len(chain.rounds) == 3
    assert all(r.critique and r.revision and r.principle_id for r in chain.rounds)
    assert chain.token_ids and not chain.truncated


async def test_direct_revision_has_no_critique():
    chain = await revise(critique=False)(engine(), PROMPT)
    assert [r.critique for r in chain.rounds] == ["", ""]


async def test_a_resubmitted_row_is_the_same_row():
    first, second = [await revise()(engine(), PROMPT) for _ in range(2)]
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    other = await revise()(engine(), replace(PROMPT, id="f:2"))
    assert (other.response, other.rounds) != (first.response, first.rounds)


async def test_a_long_dialogue_loses_its_oldest_turns_and_says_so():
    long = tuple(Turn(role=role, text="words " * 60) for _ in range(3) for role in ("human", "assistant"))
    chain = await revise()(engine(max_length=1024), replace(PROMPT, turns=(*long, *PROMPT.turns)))
    assert chain.truncated
    assert chain.prompt[-1] == PROMPT.turns[-1] and len(chain.prompt) < 7


def comparison(answer_1: str, answer_2: str) -> Comparison:
    return Comparison(
        id="f:1",
        **PROVENANCE,
        axis="red_team",
        prompt=PROMPT.turns,
        prompt_ids=(1,),
        answer_1=answer_1,
        answer_2=answer_2,
        token_ids_1=(1,),
        token_ids_2=(2,),
        policy_version=0,
        truncated=False,
    )


def label(**settings) -> Label:
    return Label(
        seed=0,
        constitution=CONSTITUTION,
        settings=Labelling(**settings),
        dialogue_format="human_assistant",
    )


async def test_both_orders_are_judged_by_one_principle():
    made = await label()(engine("labeller"), comparison("No, because it hurts.", "Take a mask."))
    assert [j.order for j in made.judgements] == [1, 2]
    assert len({j.principle_id for j in made.judgements}) == 1
    assert made.constitution_hash == CONSTITUTION.hash and made.prob is not None


@pytest.mark.parametrize("aggregation", ["prob_mean", "logit_mean", "agree_or_tie"])
@pytest.mark.parametrize("bias", [0.0, 2.0])
async def test_swapping_the_answers_complements_the_label(aggregation, bias):
    judge, pair = engine("labeller", slot_bias=bias), comparison("No, because it hurts.", "Take a mask.")
    one, other = [await label(aggregation=aggregation)(judge, p) for p in (pair, pair.swap())]
    assert one.prob == 1 - other.prob
    assert one.judgements[0].principle_id == other.judgements[0].principle_id


MODES = {
    "plain": {},
    "ensemble": {"principles": 4},
    "greedy reasoning": {"reasoning": Reasoning(mode="greedy", max_tokens=20)},
    "sampled reasoning": {"reasoning": Reasoning(mode="sampled", rationales=3, max_tokens=20)},
    "ensemble that reasons": {"principles": 2, "reasoning": Reasoning(mode="greedy", max_tokens=20, clamp=0.2)},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("format", ["human_assistant"])
async def test_swapping_the_answers_complements_the_label_in_every_mode(mode, format):
    judge = engine("labeller", slot_bias=1.0)
    for number in range(10):
        pair = replace(comparison(f"No, because it hurts {number}.", "Take a mask."), id=f"f:{number}")
        one, other = [await label(**MODES[mode])(judge, p) for p in (pair, pair.swap())]
        assert one.status == other.status == Status.OK
        assert one.prob == 1 - other.prob


async def test_an_ensemble_asks_different_principles_in_both_orders():
    made = await label(principles=4)(engine("labeller"), comparison("No.", "Take a mask."))
    assert len(made.judgements) == 8
    assert len({j.principle_id for j in made.judgements}) == 4
    assert sorted(j.order for j in made.judgements) == [1] * 4 + [2] * 4


async def test_reasoning_is_kept_with_the_judgement():
    reasoning = Reasoning(mode="sampled", rationales=2, max_tokens=20)
    made = await label(reasoning=reasoning)(engine("labeller"), comparison("No.", "Take a mask."))
    assert len(made.judgements) == 4 and all(j.rationale for j in made.judgements)
    assert 0.4 <= made.prob <= 0.6
    plain = await label()(engine("labeller"), comparison("No.", "Take a mask."))
    assert all(j.rationale is None for j in plain.judgements)


async def test_both_orders_see_the_same_shortened_conversation():
    long = tuple(Turn(role=role, text="words " * 60) for _ in range(6) for role in ("human", "assistant"))
    pair = replace(comparison("No.", "Take a mask."), prompt=(*long, *PROMPT.turns))
    made = await label()(engine("labeller", max_length=1024), pair)
    assert made.truncated and made.status == Status.OK
    assert made.prompt == pair.prompt  # the record keeps the original pair


async def test_few_shot_examples_come_before_the_question():
    example = LabelExample(prompt="q", comparison="Which is better?", answer_a="x", answer_b="y", preferred="B")
    task = replace(label(), examples=(example,))
    plain, shown = [await t(engine("labeller"), comparison("No.", "Take a mask.")) for t in (label(), task)]
    assert plain.prob == shown.prob  # the scripted judge reads only the last question
    question = Question(
        template=DEFAULT, turns=PROMPT.turns, comparison="Which?", slot_a="1", slot_b="2", examples=(example,)
    )
    text = "".join(HumanAssistant().choice(question))
    assert "None" not in "".join(HumanAssistant().reasoning(question))  # an example without reasoning adds none
    assert "(A) x\n(B) y\n\nThe answer is: (B)\n\nConsider" in text and text.endswith("(B) 2\n\nThe answer is:")


async def test_a_label_that_takes_too_long_times_out():
    made = await label(timeout_s=0.05)(engine("labeller", latency_s=5.0), comparison("No.", "Take a mask."))
    assert (made.status, made.prob) == (Status.TIMEOUT, None) and "0.05 s" in made.error


async def test_identical_answers_are_a_tie_and_an_empty_one_is_invalid():
    judge = engine("labeller")
    same = await label()(judge, comparison("No.", "No."))
    assert (same.status, same.prob, same.judgements) == (Status.TIE, 0.5, ())
    empty = await label()(judge, comparison("", "No."))
    assert (empty.status, empty.prob) == (Status.INVALID, None) and "answer_1 is empty" in empty.error


async def test_a_pair_holds_two_different_samples_as_token_ids():
    pair = await SamplePair(seed=0, dialogue_format="human_assistant", sampling=SAMPLING)(engine(), PROMPT)
    assert pair.answer_1 != pair.answer_2
    assert pair.token_ids_1 != pair.token_ids_2
    assert pair.swap().swap() == pair


async def test_scores_are_read_at_one_eos():
    (draw,) = draws(PROMPT, 1, "seed")
    generator, scorer = engine(), engine("scorer")
    sample = await RollOut(dialogue_format="human_assistant", sampling=SAMPLING)(generator, draw)
    scored = await ScoreSample()(scorer, sample)
    eos = scorer.tokenizer.eos_token_id
    whole = sample.prompt_ids + ensure_eos(sample.completion.token_ids, eos)
    assert scored.score == await scorer.score(whole)
    assert whole[-1] == eos and ensure_eos(whole, eos) == whole


async def test_a_truncated_answer_to_a_long_prompt_can_still_be_scored():
    long = replace(PROMPT, turns=(Turn(role="human", text="words " * 200),))
    (draw,) = draws(long, 1, "seed")
    task = RollOut(dialogue_format="human_assistant", sampling=SamplingSettings(max_tokens=5))
    sample = await task(engine(max_length=256), draw)
    assert sample.completion.finish_reason == "length" and len(sample.prompt_ids) + 5 == 255
    assert (await ScoreSample()(engine("scorer", max_length=256), sample)).score


async def test_a_scripted_failure_fails_the_row():
    with pytest.raises(Exception, match="scripted"):
        await revise()(engine(failure_rate=1.0), PROMPT)


# ------------------------------------------------------------------------------------------- flaws of revisions
@pytest.mark.parametrize(
    ("critique", "revision", "flaw"),
    [
        ("Too blunt.", "No, because it hurts people.", None),
        ("Too blunt.", "", "empty"),
        ("Too blunt.", "Take a mask.", "unchanged"),
        ("Too blunt.", "Too blunt.", "critique_as_revision"),
        ("Too blunt.", "The assistant's last response helps with a crime.", "critique_as_revision"),
        ("Too blunt.", "Here is a revised answer: no.", "leaked_prefix"),
        ("Too blunt.", "Sure! Here's the improved response:\n\nNo.", "leaked_prefix"),
        ("Too blunt.", "Revised response: no.", "leaked_prefix"),
        ("Too blunt.", "**Revised response:** No.", "leaked_prefix"),
        ("Too blunt.", "**Revised Response**\n\nNo.", "leaked_prefix"),
        ("Too blunt.", "# Revision\n\nNo.", "leaked_prefix"),
        ("Too blunt.", "[Revision] No.", "leaked_prefix"),
        ("Too blunt.", "Revised:\nNo.", "leaked_prefix"),
        ("Too blunt.", "*Rewritten answer*: No.", "leaked_prefix"),
        ("Too blunt.", "Here is a safer response: No.", "leaked_prefix"),
        ("Too blunt.", "Here's my answer without the harmful parts: No.", "leaked_prefix"),
        ("Too blunt.", "I've rewritten the answer. No.", "leaked_prefix"),
        ("Too blunt.", "Let me rewrite that: no.", "leaked_prefix"),
        ("Too blunt.", "Okay, the user wants something else.</think>No.", "leaked_prefix"),
        ("Too blunt.", "<think>The user is rude.</think>\n\nNo.", "leaked_prefix"),
        ("Too blunt.", "Here is a list of three things: a, b and c.", None),
        ("Too blunt.", "Here is what the law says: no.", None),
        ("Too blunt.", "Revision of your tax return takes a week.", None),
        ("Too blunt.", "I would revise for the exam early.", None),
        ("Too blunt.", "Improved roads help everyone.", None),
        ("Too blunt.", "Let me think: no.", None),
        ("I'm sorry, I cannot help with that.", "No.", "refused_critique"),
        ("Too blunt.", "Here is why: it hurts people.", None),
        ("Too blunt.", "The answer is no, because it hurts people.", None),
    ],
)
def test_what_is_no_revision_has_a_name(critique, revision, flaw):
    assert flaw_of("Take a mask.", critique, revision, cut_off=False) == flaw


def test_a_revision_that_was_cut_off_has_no_end():
    assert flaw_of("Take a mask.", "Too blunt.", "No, because it", cut_off=True) == "over_long"


async def test_a_flawed_revision_is_counted_and_the_next_round_starts_from_the_text_before():
    chain = await revise(rounds=2, max_revision_tokens=3)(engine(), PROMPT)
    assert [r.flaw for r in chain.rounds] == ["over_long"] * 2
    assert (chain.status, chain.error) == (Status.INVALID, "no usable revision: over_long, over_long")
    counts = filter_metrics([chain])
    assert counts["revise/filter/over_long"] == counts["revise/filter/num_rounds"] == 2
