"""From records to training rows: what is tokenized, what is used as sampled, what is left out and counted."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

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
from rlaif.training.training_sets import PairBuilder, ai_probs, sft_rows, write_pair_rows, write_sft_rows
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
    return list(sft_rows(chains, samples, TOKENIZER, "human_assistant", Supervision(**settings)))


def test_all_or_final_revisions_are_trained_on():
    assert [r["id"] for r in rows([chain()], [])] == ["f:1/0", "f:1/1"]
    (final,) = rows([chain()], [], train_on="final")
    assert TOKENIZER.decode(final["input_ids"][final["prompt_length"] :]) == " two</s>"
    assert TOKENIZER.decode(final["input_ids"][: final["prompt_length"]]).endswith("\n\nHuman: hi\n\nAssistant:")


def test_what_is_not_ok_never_trains_and_is_counted(tmp_path):
    made = rows([chain(status=Status.INVALID)], [sample(), sample(finish_reason="length"), sample(status="error")])
    written = write_sft_rows(tmp_path / "sft.parquet", made)
    assert (written.rows_in, written.rows_out, written.left_out) == (4, 1, 3)
    assert pq.read_table(tmp_path / "sft.parquet").num_rows == 1


def test_a_long_prompt_loses_its_oldest_tokens_and_never_its_answer():
    long = (Turn(role="human", text="x" * 500),)
    (row, _) = rows([chain(prompt=long)], [], max_length=40)
    assert len(row["input_ids"]) == 40
    assert row["input_ids"][-1] == EOS
    assert TOKENIZER.decode(row["input_ids"][row["prompt_length"] :]) == " one</s>"


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
    return PairBuilder(
        tokenizer=TOKENIZER, dialogue_format="human_assistant", settings=PreferenceModel(**settings), seed=0
    )


def test_sampled_ids_are_used_as_sampled_and_end_in_one_eos():
    labels = [label("f:1", 0.8), label("f:2", None)]
    (row,) = builder(harmless_weight=2.0).from_labels(labels, ai_probs(labels, False, 0))
    assert row["input_ids_1"] == [5, 6, 7, EOS]
    assert row["input_ids_2"] == [5, 6, 8, 9, EOS]
    assert (row["prob"], row["weight"], row["axis"]) == (0.8, 2.0, "harmless")


def test_shuffled_labels_are_a_permutation():
    labels = [label(f"f:{i}", i / 100) for i in range(100)]
    shuffled = ai_probs(labels, True, 0)
    assert sorted(shuffled.values()) == sorted(ai_probs(labels, False, 0).values())
    assert shuffled != ai_probs(labels, False, 0)
    assert shuffled == ai_probs(labels, True, 0) != ai_probs(labels, True, 1)


def test_the_mix_has_the_ratio_asked_for():
    labels = [label(f"f:{i}", 0.5) for i in range(10)]
    pairs = [
        PreferencePair(id=f"h:{i}", source_file="h", source_row=i, prompt=PROMPT, chosen="yes", rejected="no")
        for i in range(50)
    ]
    made = builder(helpful_per_harmless=0.74)
    axes = [r["axis"] for r in made.mix(made.from_labels(labels, ai_probs(labels, False, 0)), pairs, len(labels))]
    assert (axes.count("harmless"), axes.count("helpful")) == (10, 7)


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
    assert write_pair_rows(tmp_path / "p.parquet", made).left_out == 0


def test_held_out_rows_are_a_fixed_share():
    made = builder(heldout_fraction=0.2)
    parts = [made.split_of({"id": f"f:{i}"}) for i in range(2000)]
    assert parts.count("heldout") / len(parts) == pytest.approx(0.2, abs=0.03)
    assert parts == [made.split_of({"id": f"f:{i}"}) for i in range(2000)]
    assert set(parts) == set(made.splits) == {"fit", "heldout"}


def test_a_test_split_halves_what_is_fitted_on_and_holds_the_same_rows_out():
    whole, halved = builder(heldout_fraction=0.2), builder(heldout_fraction=0.2, test_split=True)
    rows = [{"id": f"f:{i}"} for i in range(2000)]
    parts = [halved.split_of(row) for row in rows]
    assert set(parts) == set(halved.splits)
    assert parts.count("test_fit") / len(parts) == pytest.approx(0.4, abs=0.03)
    assert [p == "heldout" for p in parts] == [whole.split_of(row) == "heldout" for row in rows]


def test_encode_is_what_sft_uses():
    (row,) = rows([], [sample()])
    assert row["input_ids"][row["prompt_length"] :] == [*encode(TOKENIZER, " sure"), EOS]
