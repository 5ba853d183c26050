"""From records to training rows: what is tokenized, what is used as sampled, what is left out and counted."""

import itertools
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.config.schema import PreferenceModel, Supervision
from rlaif.prompting.tokenization import encode
from rlaif.records import (
    Answer,
    Preference,
    PreferencePair,
    RevisionChain,
    Round,
    ScoredAnswer,
    ScoredAnswers,
    Status,
    Turn,
)
from rlaif.training.splits import Splits
from rlaif.training.training_rows import LeftOut, PairBuilder, SFTBuilder
from rlaif.training.training_sets import ai_probs, draw_by_lot, write_pair_rows, write_pair_splits, write_sft_rows
from tests.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
EOS = TOKENIZER.eos_token_id
PROMPT = (Turn(role="human", text="hi"),)
COMMON = {"source_file": "f", "source_row": 1, "seconds": 0.0, "seed": 0, "model_version": "m"}


def chain(**changes) -> RevisionChain:
    made = RevisionChain(
        id="f:1",
        status=Status.OK,
        error=None,
        axis="red_team",
        prompt=PROMPT,
        response="bad",
        rounds=tuple(Round(principle_id="p", critique="c", revision=text) for text in ("one", "two")),
        token_ids=(),
        truncated=False,
        **COMMON,
    )
    return replace(made, **changes)


def sample(**changes) -> Answer:
    made = Answer(
        id="g:1#0",
        status=Status.OK,
        error=None,
        axis="helpful",
        snapshot="helpful_only",
        prompt=PROMPT,
        text="sure",
        token_ids=(),
        finish_reason="stop",
        **COMMON,
    )
    return replace(made, **changes)


def rows(chains, samples, **settings):
    made = SFTBuilder(tokenizer=TOKENIZER, dialogue_format="human_assistant", settings=Supervision(**settings))
    return [*made.from_revisions(chains), *made.from_samples(samples)]


def causes(made) -> list[str]:
    return [row.cause for row in made if isinstance(row, LeftOut)]


def prompt_text(row, key="input_ids") -> str:
    ids = row[key][: row["prompt_length"]] if "prompt_length" in row else row[key]
    return TOKENIZER.decode(ids)


def test_all_or_final_revisions_are_trained_on():
    assert [r["id"] for r in rows([chain()], [])] == ["f:1/0", "f:1/1"]
    (final,) = rows([chain()], [], train_on="final")
    assert TOKENIZER.decode(final["input_ids"][final["prompt_length"] :]) == " two</s>"
    assert prompt_text(final).endswith("\n\nHuman: hi\n\nAssistant:")


GOOD, BAD = (Round(principle_id="p", critique="c", revision="r", flaw=flaw) for flaw in (None, "over_long"))


@pytest.mark.parametrize(
    ("train_on", "rounds", "trained_on", "left_out"),
    [
        ("all", (GOOD, BAD), ["f:1/0"], ["f:1/1"]),
        ("all", (BAD, BAD), [], ["f:1/0", "f:1/1"]),
        ("final", (GOOD, BAD), ["f:1/0"], []),
        ("final", (BAD, BAD), [], ["f:1/1"]),
        ("all", (), [], ["f:1"]),
        ("final", (), [], ["f:1"]),
    ],
)
def test_a_flawed_revision_is_left_out_by_name(train_on, rounds, trained_on, left_out):
    made = rows([chain(rounds=rounds, error="empty answer")], [], train_on=train_on)
    assert [row["id"] for row in made if not isinstance(row, LeftOut)] == trained_on
    assert [row.id for row in made if isinstance(row, LeftOut)] == left_out
    assert set(causes(made)) <= {"flawed revision: over_long", "empty answer"}


def test_what_is_not_ok_never_trains_and_is_counted(tmp_path):
    samples = [sample(), sample(finish_reason="length"), sample(status=Status.INVALID, error="empty answer")]
    booked = []
    written = write_sft_rows(tmp_path / "sft.parquet", rows([], samples), booked.append)
    assert (written.rows_in, written.rows_out, written.cut) == (3, 1, 0)
    assert causes(booked) == ["the answer was cut off at sampling.max_tokens", "empty answer"]
    assert {(row.source_file, row.source_row) for row in booked} == {("f", 1)}
    assert pq.read_table(tmp_path / "sft.parquet").num_rows == 1


LONG = (
    Turn(role="human", text="first " * 10),
    Turn(role="assistant", text="answer"),
    Turn(role="human", text="last"),
)


def test_a_long_dialogue_loses_its_oldest_turns_and_never_its_answer(tmp_path):
    (row, _) = rows([chain(prompt=LONG)], [], max_length=60)
    assert prompt_text(row) == TOKENIZER.bos_token + "\n\nHuman: last\n\nAssistant:"
    assert TOKENIZER.decode(row["input_ids"][row["prompt_length"] :]) == " one</s>"
    assert write_sft_rows(tmp_path / "sft.parquet", [row], pytest.fail).cut == 1


def test_what_would_lose_its_last_human_turn_is_left_out():
    assert (
        causes(rows([chain(prompt=LONG)], [], max_length=20))
        == ["its last human turn and answer, with any system turn, are longer than supervision.max_length"] * 2
    )


def label(id: str, prob: float | None) -> Preference:
    return Preference(
        id=id,
        status=Status.OK if prob is not None else Status.INVALID,
        error=None,
        axis="red_team",
        prompt=PROMPT,
        prompt_ids=(5, 6),
        answer_1="a",
        answer_2="b",
        token_ids_1=(7, EOS),
        token_ids_2=(8, 9),
        policy_version=0,
        prob=prob,
        aggregation="prob_mean",
        judgements=(),
        constitution_hash="h",
        template_version="1",
        truncated=False,
        **COMMON,
    )


def builder(**settings) -> PairBuilder:
    return PairBuilder(tokenizer=TOKENIZER, dialogue_format="human_assistant", settings=PreferenceModel(**settings))


def test_sampled_ids_are_used_as_sampled_and_end_in_one_eos():
    labels = [label("f:1", 0.8), label("f:2", None)]
    row, left_out = builder(harmless_weight=2.0).from_labels(labels, ai_probs(labels, False, 0))
    assert row["input_ids_1"] == [5, 6, 7, EOS]
    assert row["input_ids_2"] == [5, 6, 8, 9, EOS]
    assert (row["prob"], row["weight"], row["axis"]) == (0.8, 2.0, "harmless")
    assert (left_out.id, left_out.cause) == ("f:2", "its label is invalid")


def human(id: str = "h:1", **changes) -> PreferencePair:
    pair = PreferencePair(id=id, source_file="h", source_row=1, prompt=PROMPT, chosen="yes", rejected="no")
    return replace(pair, **changes)


@pytest.mark.parametrize(("first", "second"), [("yes", "no"), ("y" * 30, "no"), ("no", "y" * 30)])
def test_both_answers_of_a_pair_keep_the_same_turns(first, second):
    (row,) = builder(max_length=90).from_pairs([human(prompt=LONG, chosen=first, rejected=second)])
    ends = [TOKENIZER.decode(row[side]) for side in ("input_ids_1", "input_ids_2")]
    kept = TOKENIZER.bos_token + "\n\nHuman: last\n\nAssistant:"
    assert row["cut"] and ends == [f"{kept} {first}</s>", f"{kept} {second}</s>"]


def test_a_sampled_pair_is_cut_at_turns_too():
    labels = [replace(label("f:1", 0.8), prompt=LONG, prompt_ids=tuple(range(5, 105)))]
    (row,) = builder(max_length=60).from_labels(labels, {"f:1": 0.8})
    assert row["cut"] and row["input_ids_1"][-2:] == [7, EOS]
    assert TOKENIZER.decode(row["input_ids_1"][:-2]) == TOKENIZER.bos_token + "\n\nHuman: last\n\nAssistant:"


def test_a_pair_that_would_lose_its_last_human_turn_is_left_out():
    made = [*builder(max_length=40).from_pairs([human(rejected="n" * 30)])]
    longer = "its last human turn and answer, with any system turn, are longer than preference_model.max_length"
    assert causes(made) == [longer]


def test_pairs_without_a_difference_say_nothing():
    same = replace(label("f:1", 0.5), token_ids_1=(7,), token_ids_2=(7, EOS))
    made = [*builder().from_labels([same], {"f:1": 0.5}), *builder().from_pairs([human(rejected="yes")])]
    assert causes(made) == ["both answers are the same"] * 2


@given(
    turns=st.lists(st.text("ab \n", min_size=1, max_size=40), min_size=1, max_size=5),
    answers=st.tuples(st.text("yn", max_size=30), st.text("yn", max_size=30)),
    longest=st.integers(30, 120),
)
def test_every_pair_fits_with_its_last_turn_or_is_left_out(turns, answers, longest):
    roles = itertools.cycle(("human", "assistant"))
    prompt = tuple(Turn(role=next(roles), text=text) for text in (*turns, *(["x"] if len(turns) % 2 == 0 else [])))
    (row,) = builder(max_length=longest).from_pairs([human(prompt=prompt, chosen=answers[0], rejected=answers[1])])
    if isinstance(row, LeftOut):
        return
    sides = row["input_ids_1"], row["input_ids_2"]
    assert max(map(len, sides)) <= longest and sides[0] != sides[1]
    assert all(side[0] == TOKENIZER.bos_token_id and side[-1] == EOS for side in sides)
    last = f"Human: {prompt[-1].text}"
    assert all(last in TOKENIZER.decode(side) for side in sides)


def test_shuffled_labels_are_a_permutation():
    labels = [label(f"f:{i}", i / 100) for i in range(100)]
    shuffled = ai_probs(labels, True, 0)
    assert sorted(shuffled.values()) == sorted(ai_probs(labels, False, 0).values())
    assert shuffled != ai_probs(labels, False, 0)
    assert shuffled == ai_probs(labels, True, 0) != ai_probs(labels, True, 1)


def test_a_lot_falls_on_all_places_of_a_file_and_larger_ones_hold_smaller_ones():
    pairs = [human(f"h:{i}") for i in range(400)]
    drawn = draw_by_lot(pairs, 100, 0)
    assert sorted(drawn.values()) == list(range(100))
    quarters = Counter(int(id[2:]) // 100 for id in drawn)
    assert min(quarters[quarter] for quarter in range(4)) >= 10
    assert draw_by_lot(pairs[::-1], 100, 0) == drawn
    larger = draw_by_lot(pairs, 150, 0)
    assert {id: larger[id] for id in drawn} == drawn
    assert draw_by_lot(pairs, 100, 1) != drawn
    assert len(draw_by_lot(pairs[:5], 100, 0)) == 5


def test_votes_become_pairs_of_different_scores(tmp_path):
    answers = (
        ScoredAnswer(text="good", votes=30, accepted=True),
        ScoredAnswer(text="poor", votes=1, accepted=False),
        ScoredAnswer(text="same", votes=1, accepted=False),
    )
    question = ScoredAnswers(id="v:1", source_file="v", source_row=1, question="Why?", answers=answers)
    made = list(builder().from_votes([question]))
    assert made and all(r["prob"] == 1.0 and r["input_ids_1"][-1] == EOS for r in made)
    assert all("good" in TOKENIZER.decode(r["input_ids_1"]) for r in made)
    assert write_pair_rows(tmp_path / "p.parquet", made, pytest.fail).rows_out == len(made)


def test_voted_answers_that_do_not_fit_are_left_out():
    answers = (
        ScoredAnswer(text="good " * 20, votes=30, accepted=True),
        ScoredAnswer(text="a", votes=0, accepted=False),
    )
    question = ScoredAnswers(id="v:1", source_file="v", source_row=1, question="Why?", answers=answers)
    assert causes(builder(max_length=40).from_votes([question])) == ["longer than preference_model.max_length=40"]


def splits(test: bool = False) -> Splits:
    return Splits(seed=0, heldout_fraction=0.2, test=test)


def test_held_out_prompts_are_a_fixed_share():
    parts = [splits().of(str(i)) for i in range(2000)]
    assert parts.count("heldout") / len(parts) == pytest.approx(0.2, abs=0.03)
    assert parts == [splits().of(str(i)) for i in range(2000)]
    assert set(parts) == set(splits().names) == {"fit", "heldout"}


def test_a_test_split_halves_what_is_fitted_on_and_holds_the_same_prompts_out():
    halves = [splits(test=True).of(str(i)) for i in range(2000)]
    assert set(halves) == set(splits(test=True).names)
    assert halves.count("test_fit") / len(halves) == pytest.approx(0.4, abs=0.03)
    assert [half == "heldout" for half in halves] == [splits().of(str(i)) == "heldout" for i in range(2000)]


def test_no_prompt_is_on_both_sides_of_the_split(tmp_path):
    """Many pairs to each prompt, the same in other spelling, and the same pairs twice."""
    spelled = [f"How do I do thing {i}?" for i in range(60)] + [f" how do I  do THING {i}" for i in range(60)]
    pairs = [
        human(f"{text}:{k}", prompt=(Turn(role="human", text=text),), chosen=f"yes {k % 2}")
        for text in spelled
        for k in range(4)
    ]
    paths = {name: tmp_path / f"{name}.parquet" for name in splits(test=True).names}
    counts, sizes = write_pair_splits(paths, builder().from_pairs(pairs), splits(test=True).of, pytest.fail)
    assert counts.rows_out == sum(sizes.values()) == len(pairs) and min(sizes.values()) > 0
    prompts = [set(pq.read_table(path)["prompt"].to_pylist()) for path in paths.values()]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(prompts, 2))
    assert sum(map(len, prompts)) == 60


def test_encode_is_what_sft_uses():
    (row,) = rows([], [sample()])
    assert row["input_ids"][row["prompt_length"] :] == [*encode(TOKENIZER, " sure"), EOS]
