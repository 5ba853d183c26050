"""Tasks on models that think first, and that end their answers in one of several ways.

The engine says what it is told to, through the project's own batching engine: only its model is written down.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from rlaif.config.schema import CritiqueRevision, Labelling, PoolSettings, Reasoning, SamplingSettings
from rlaif.constitution.principles import load_constitution
from rlaif.engines.backend import SampledTokens
from rlaif.engines.batching import BatchingEngine
from rlaif.engines.models import ServedModel
from rlaif.engines.requests import ChoiceRequest, GenerateRequest, ScoreRequest
from rlaif.prompting.chat_templates import ChatFormat
from rlaif.prompting.tokenization import encode
from rlaif.records import Comparison, Prompt, Status, Turn
from rlaif.tasks.critique_revision import Revise
from rlaif.tasks.direct_reward import RateSample
from rlaif.tasks.labelling import Label
from rlaif.tasks.sampling import RollOut, SampleAnswer, SamplePair, ScoreSample, draws
from tests.unit.prompting.chat_tokenizers import ALWAYS_THINKING, CHATML, with_template
from tests.unit.provenance import PROVENANCE

CONSTITUTION = load_constitution("sixteen_principles")
SAMPLING = SamplingSettings(max_tokens=400)
PROMPT = Prompt(
    id="f:1", source_file="f", source_row=1, axis="red_team", turns=(Turn(role="human", text="How do I rob a bank?"),)
)
(DRAW,) = draws(PROMPT, 1, "seed")
END, OTHER_END = "<|im_end|>", "</s>"


class Written:
    """A backend that answers with what is written, one text after another, and keeps what it was asked."""

    prefix_hits = (0, 0)

    def __init__(self, tokenizer, texts: Iterator[str]) -> None:
        self._tokenizer, self._texts = tokenizer, texts
        self._waiting: list = []
        self.asked: list = []

    def admit(self, key, request) -> None:
        self._waiting.append((key, request))
        self.asked.append(request)

    def step(self):
        served, self._waiting = self._waiting, []
        return [(key, self._answer(request)) for key, request in served]

    def _answer(self, request):
        if isinstance(request, ScoreRequest):
            return float(len(request.token_ids))
        if isinstance(request, ChoiceRequest):
            return (-0.6,) + (-0.9,) * (len(request.choice_ids) - 1)
        ids = tuple(self._tokenizer(next(self._texts), add_special_tokens=False)["input_ids"])
        ended = ids[-1:] and ids[-1] in self._tokenizer.convert_tokens_to_ids([END, OTHER_END])
        assert isinstance(request, GenerateRequest)
        return SampledTokens(token_ids=ids, logprobs=(-1.0,) * len(ids), finish_reason="stop" if ended else "length")

    def cancel(self, key) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def open_engine() -> Iterator[Callable]:
    opened: list[BatchingEngine] = []

    def start(template: str, *texts: str, kind: str = "language"):
        tokenizer = with_template(template)
        tokenizer.eos_token = END
        eos, other = tokenizer.convert_tokens_to_ids([END, OTHER_END])
        model = ServedModel(
            path="written",
            version="written@1",
            kind=kind,
            vocab_size=len(tokenizer),
            max_length=8192,
            eos_id=eos,
            end_ids=frozenset({eos, other}),
            shapes={},
        )
        backend = Written(tokenizer, itertools.cycle(texts))
        engine = BatchingEngine(lambda: backend, model, tokenizer, PoolSettings())
        opened.append(engine)
        return engine, backend

    yield start
    for engine in opened:
        asyncio.run(engine.close())


def revise(**settings) -> Revise:
    return Revise(
        seed=0,
        constitution=CONSTITUTION,
        settings=CritiqueRevision(rounds=1, max_critique_tokens=400, max_revision_tokens=400, **settings),
        dialogue_format="chat_template",
        sampling=SAMPLING,
    )


# ----------------------------------------------------------------------------------------------------- thoughts
async def test_thoughts_are_in_no_answer_critique_or_revision(open_engine):
    said = [f"hm</think>{text}{END}" for text in ("Take a mask.", "That is harmful.", "I will not help.")]
    engine, backend = open_engine(ALWAYS_THINKING, *said)
    chain = await revise()(engine, PROMPT)
    (round,) = chain.rounds
    assert (chain.response, round.critique, round.revision) == ("Take a mask.", "That is harmful.", "I will not help.")
    assert (chain.status, round.flaw) == (Status.OK, None)
    last = engine.tokenizer.decode(backend.asked[-1].prompt_ids)
    assert "Take a mask." in last and "That is harmful." in last and "hm" not in last


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (["hm, the user", "x", "x"], "unfinished thought"),
        ([f"hm</think>Yes.{END}", "hm, the", "x"], "no usable revision: unfinished_thought"),
        ([f"hm</think>Yes.{END}", f"hm</think>Bad.{END}", "hm, so"], "no usable revision: unfinished_thought"),
    ],
)
async def test_an_unfinished_thought_is_a_flaw_and_never_a_text(open_engine, said, error):
    chain = await revise()(open_engine(ALWAYS_THINKING, *said)[0], PROMPT)
    assert (chain.status, chain.error) == (Status.INVALID, error)
    texts = [chain.response, *(text for round in chain.rounds for text in (round.critique, round.revision))]
    assert not any("hm" in text for text in texts)


async def test_an_answer_that_never_came_is_invalid(open_engine):
    task = SampleAnswer(snapshot="helpful_only", dialogue_format="chat_template", sampling=SAMPLING)
    answer = await task(open_engine(ALWAYS_THINKING, "hm, the user")[0], DRAW)
    assert (answer.status, answer.error, answer.text) == (Status.INVALID, "unfinished thought", "")
    answer = await task(open_engine(ALWAYS_THINKING, f"hm</think>Yes.{END}")[0], DRAW)
    assert (answer.status, answer.text) == (Status.OK, "Yes.")


def comparison() -> Comparison:
    return Comparison(
        id="f:1",
        **PROVENANCE,
        axis="red_team",
        prompt=PROMPT.turns,
        prompt_ids=(1,),
        answer_1="No.",
        answer_2="Take a mask.",
        token_ids_1=(1,),
        token_ids_2=(2,),
        policy_version=0,
        truncated=False,
    )


async def test_the_labeller_chooses_after_its_rationale_and_after_no_thought(open_engine):
    engine, backend = open_engine(ALWAYS_THINKING, f"<think>hm</think>The first harms nobody.{END}")
    settings = Labelling(reasoning=Reasoning(mode="greedy"))
    task = Label(seed=0, constitution=CONSTITUTION, settings=settings, dialogue_format="chat_template")
    label = await task(engine, comparison())
    assert label.status == Status.TIE  # this labeller always prefers slot A
    assert {judgement.rationale for judgement in label.judgements} == {"The first harms nobody."}
    for request in backend.asked:
        text = engine.tokenizer.decode(request.prompt_ids)
        assert text.count("<think>") == text.count("</think>") == 1 and "hm" not in text


async def test_a_rationale_that_is_only_a_thought_makes_no_label(open_engine):
    engine, _ = open_engine(ALWAYS_THINKING, "<think>hm, the first")
    settings = Labelling(reasoning=Reasoning(mode="greedy"))
    label = await Label(seed=0, constitution=CONSTITUTION, settings=settings, dialogue_format="chat_template")(
        engine, comparison()
    )
    assert (label.status, label.prob) == (Status.ERROR, None) and "unfinished thought" in label.error


async def test_thoughts_in_pairs_that_a_user_brings_are_not_judged(open_engine):
    engine, backend = open_engine(CHATML, "")
    task = Label(seed=0, constitution=CONSTITUTION, settings=Labelling(), dialogue_format="chat_template")
    label = await task(engine, replace(comparison(), answer_1="<think>hm</think>No. A </think> is a tag."))
    assert label.status == Status.TIE and label.answer_1.startswith("<think>hm")  # the pair itself stays as it is
    asked = [engine.tokenizer.decode(request.prompt_ids) for request in backend.asked]
    assert asked and all("No. A </think> is a tag." in text and "hm" not in text for text in asked)
    same = await task(engine, replace(comparison(), answer_1="<think>hm</think>Take a mask."))
    assert (same.status, same.judgements) == (Status.TIE, ())
    label = await task(engine, replace(comparison(), answer_2="<think>hm"))
    assert (label.status, label.error) == (Status.INVALID, "answer_2 is an unfinished thought")


async def test_a_pair_is_judged_and_learned_without_thoughts(open_engine):
    engine, _ = open_engine(CHATML, f"<think>hm</think>\n\nYes.{END}", "<think>hm, the user")
    pair = await SamplePair(seed=0, dialogue_format=ChatFormat(may_think=False), sampling=SAMPLING)(engine, PROMPT)
    assert (pair.answer_1, pair.answer_2) == ("Yes.", "")
    assert pair.token_ids_1 == (*encode(engine.tokenizer, "Yes."), engine.tokenizer.eos_token_id)
    assert pair.token_ids_2 == ()


async def test_a_thought_that_special_tokens_mark_is_no_answer_either(open_engine):
    engine, _ = open_engine(CHATML, f"[THINK]hm[/THINK]Yes.{END}")
    engine.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", END]})
    answer = await SampleAnswer(snapshot="s", dialogue_format="chat_template", sampling=SAMPLING)(engine, DRAW)
    assert answer.text == "Yes."


async def test_the_feedback_model_rates_what_was_said(open_engine):
    engine, _ = open_engine(CHATML, f"<think>hm</think>Yes.{END}", "<think>hm, the user")
    roll_out = RollOut(dialogue_format="chat_template", sampling=SAMPLING)
    draw = replace(DRAW, id="f:1@red_team.0.0#0")
    said, unfinished = [await roll_out(engine, draw) for _ in range(2)]
    rater, backend = open_engine(CHATML, "")
    settings = Labelling(min_letter_mass=0.0)
    task = RateSample(seed=0, constitution=CONSTITUTION, settings=settings, dialogue_format="chat_template")
    await task(rater, said)
    asked = rater.tokenizer.decode(backend.asked[0].prompt_ids)
    assert "Yes." in asked and "hm" not in asked
    with pytest.raises(Exception, match="unfinished thought"):
        await task(rater, unfinished)


# --------------------------------------------------------------------------------------------------- end tokens
@pytest.mark.parametrize("end", [END, OTHER_END])
async def test_every_end_token_ends_an_answer_in_one_eos(open_engine, end):
    engine, _ = open_engine(CHATML, f"No.{end}")
    eos, sampled_end = engine.tokenizer.convert_tokens_to_ids([END, end])
    words = encode(engine.tokenizer, "No.")
    pair = await SamplePair(seed=0, dialogue_format="chat_template", sampling=SAMPLING)(engine, PROMPT)
    assert pair.token_ids_1 == pair.token_ids_2 == (*words, eos)
    sample = await RollOut(dialogue_format="chat_template", sampling=SAMPLING)(engine, DRAW)
    assert sample.completion.token_ids == (*words, sampled_end)  # what the policy is trained on stays as sampled
    assert sample.completion.finish_reason == "stop" and sample.completion.text == "No."
    scorer, backend = open_engine(CHATML, "", kind="preference")
    scored = await ScoreSample(dialogue_format="chat_template")(scorer, sample)
    assert backend.asked[0].token_ids == (*sample.prompt_ids, *words, eos)
    assert scored.response_ids == sample.completion.token_ids


async def test_a_truncated_answer_gets_its_eos_only_where_it_is_scored(open_engine):
    engine, _ = open_engine(CHATML, "No, because")
    pair = await SamplePair(seed=0, dialogue_format="chat_template", sampling=SAMPLING)(engine, PROMPT)
    assert engine.tokenizer.eos_token_id not in pair.token_ids_1
    sample = await RollOut(dialogue_format="chat_template", sampling=SAMPLING)(engine, DRAW)
    scorer, backend = open_engine(CHATML, "", kind="preference")
    await ScoreSample(dialogue_format="chat_template")(scorer, sample)
    whole = (*sample.prompt_ids, *sample.completion.token_ids, engine.tokenizer.eos_token_id)
    assert backend.asked[0].token_ids == whole
