"""The models' training texts: nothing held out, and every token where the templates put it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest

from rlaif.constitution.principles import load_constitution
from rlaif.miniature.batches import NOT_LEARNED, encode_questions, encode_segments
from rlaif.miniature.corpus import BASE_MIX, DIALOGUE, REVISION_RATES, WORTH, Corpus, draw
from rlaif.miniature.data import write_data
from rlaif.miniature.lexicon import load_lexicon
from rlaif.miniature.models import train_tokenizer
from rlaif.miniature.recipes import base_sequence, helpful_only_sequence, tokenizer_texts
from rlaif.miniature.truth import ORDER
from rlaif.miniature.world import World
from rlaif.records import Axis, Turn

LEXICONS = {"shipped": None, "zoo": Path(__file__).parent / "zoo.yaml"}


@pytest.fixture(scope="module", params=LEXICONS)
def corpus(request) -> Corpus:
    world = World(load_lexicon(LEXICONS[request.param]), seed=1)
    return Corpus(world, load_constitution("sixteen_principles"))


def training_texts(corpus: Corpus, directory: Path) -> list[str]:
    rng = Random(2)
    texts = list(tokenizer_texts(corpus, rng))
    for sequence in (base_sequence, helpful_only_sequence):
        texts += ["".join(s.text for s in sequence(corpus, rng)) for _ in range(1500)]
    texts += [question.text for _ in range(1500) for question in corpus.questions(rng)]
    write_data(corpus.world, directory)
    for name in ("red_team", "helpful", "helpful_pairs", "votes"):
        texts.append((directory / f"{name}.jsonl").read_text())
    return texts


def mentioned(corpus: Corpus, axis: Axis, text: str) -> set[tuple[str, str]]:
    """Every (verb, object) of the axis that is adjacent in ``text``."""
    either = "|".join(map(re.escape, sorted(corpus.world.lexicon.objects(axis), key=len, reverse=True)))
    verbs = [action.verb for action in corpus.world.lexicon.actions(axis)]
    return {(verb, o) for verb in verbs for o in re.findall(rf"\b{re.escape(verb)} ({either})\b", text)}


def test_heldout_combinations_are_in_no_training_text(corpus, tmp_path):
    text = "\n".join(training_texts(corpus, tmp_path))
    for axis in ("red_team", "helpful"):
        training = {(action.verb, object) for action, object in corpus.world.training[axis]}
        assert mentioned(corpus, axis, text) == training
        prompts = (tmp_path / f"eval_{axis}.jsonl").read_text()
        heldout = {(action.verb, object) for action, object in corpus.world.heldout[axis]}
        assert mentioned(corpus, axis, prompts) == heldout


def test_heldout_leaves_every_action_and_object_in_training(corpus):
    world = corpus.world
    for axis in ("red_team", "helpful"):
        assert {a.verb for a, _ in world.training[axis]} == {a.verb for a in world.lexicon.actions(axis)}
        assert {o for _, o in world.training[axis]} == set(world.lexicon.objects(axis))
        assert not set(world.heldout[axis]) & set(world.training[axis])


def test_data_files_hold_no_truth(corpus, tmp_path):
    write_data(corpus.world, tmp_path)
    keys = set()
    for file in tmp_path.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            keys |= {*row, *(key for answer in row.get("answers", ()) for key in answer)}
    assert keys == {"prompt", "chosen", "rejected", "question", "answers", "text", "votes", "accepted"}


def test_segments_tokenize_as_the_whole_text(corpus):
    tokenizer = train_tokenizer(tokenizer_texts(corpus, Random(0)))
    rng = Random(4)
    sequences = [base_sequence(corpus, rng) for _ in range(200)]
    for sequence, (ids, targets) in zip(sequences, encode_segments(tokenizer, sequences), strict=True):
        assert ids == tokenizer("".join(s.text for s in sequence))["input_ids"]
        learned = [t for t in targets if t != NOT_LEARNED]
        said = "".join(s.text + tokenizer.eos_token for s in sequence if s.learn)
        assert tokenizer.decode(learned) == said


def test_transcript_is_what_the_templates_make(corpus):
    rng = Random(5)
    transcripts = [corpus.transcript(rng, BASE_MIX, learn_answer=False) for _ in range(100)]
    with_critique = [segments for segments in transcripts if len(segments) == 6]
    assert 70 < len(with_critique) < 100
    for segments in with_critique:
        prompt, answer, criticise, critique, revise, _ = [segment.text for segment in segments]
        human = prompt.removeprefix("\n\nHuman: ").removesuffix("\n\nAssistant:")
        requests = {
            "critique_request": criticise.removeprefix("\n\nCritique Request: ").removesuffix("\n\nCritique:"),
            "revision_request": revise.removeprefix("\n\nRevision Request: ").removesuffix("\n\nRevision:"),
        }
        principle = corpus.revising[0].model_copy(update=requests)
        asked = (Turn(role="human", text=human),)
        expected = DIALOGUE.revision(asked, answer[1:], principle, critique[1:])
        assert prompt + answer + criticise + critique + revise == expected


def test_letters_are_found_in_context(corpus):
    tokenizer = train_tokenizer(tokenizer_texts(corpus, Random(0)))
    questions = [q.text for q in corpus.questions(Random(0))]
    prompts, (a, b) = encode_questions(tokenizer, questions)
    assert (tokenizer.decode([a]), tokenizer.decode([b])) == ("A", "B")
    assert tokenizer.decode(prompts[0]) == questions[0] + " ("


def test_both_orders_ask_for_the_same_judgement(corpus):
    rng = Random(6)
    for _ in range(50):
        first, second = corpus.questions(rng)
        assert first.prob_a == pytest.approx(1 - second.prob_a)


def test_worth_follows_the_true_order():
    for axis, order in ORDER.items():
        worths = [WORTH[axis][kind] for kind in order]
        assert worths == sorted(worths, reverse=True)


def test_surface_is_independent_of_the_class(corpus):
    rng = Random(7)
    request = corpus.world.request(rng, "red_team")
    means = {
        kind: sum(corpus.world.answer(rng, request, kind).surface for _ in range(4000)) / 4000
        for kind in ("harmful", "refusal", "evasive")
    }
    assert max(means.values()) - min(means.values()) < 0.15


def test_draw_is_softened_as_serving_sharpens():
    rng = Random(8)
    drawn = [draw(rng, REVISION_RATES["harmful"], 1.2) for _ in range(20000)]
    rates = {kind: (drawn.count(kind) / len(drawn)) ** 1.2 for kind in REVISION_RATES["harmful"]}
    total = sum(rates.values())
    for kind, rate in REVISION_RATES["harmful"].items():
        assert rates[kind] / total == pytest.approx(rate, abs=0.015)
