"""Which tiny model is trained on what, and for how long.

``make`` runs ``python -m rlaif.miniature.recipes policy|feedback DIRECTORY``, both at once on one core each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.constitution.principles import Constitution
from rlaif.miniature.batches import Batch, dialogue_batches, encode_questions, question_batches
from rlaif.miniature.corpus import BASE_MIX, HELPFUL_ONLY_MIX, SHARPNESS, Corpus, Segment
from rlaif.miniature.data import write_data
from rlaif.miniature.lexicon import Lexicon
from rlaif.miniature.models import FEEDBACK, POLICY, new_model, save, train_tokenizer
from rlaif.miniature.slot_bias import shift_head, slot_log_odds
from rlaif.miniature.training_loop import Recipe, train
from rlaif.miniature.world import World
from rlaif.seeds import seed_from

BASE_RECIPE = Recipe(steps=850, batch_size=8)
HELPFUL_RECIPE = Recipe(steps=350, batch_size=8, learning_rate=2e-3, matrix_learning_rate=0.008)
FEEDBACK_RECIPE = Recipe(steps=560, batch_size=16)


def write_world(directory: Path, lexicon: Lexicon, constitution: Constitution, seed: int) -> None:
    """Write what the two training processes start from, and the data files."""
    (directory / "lexicon.json").write_text(lexicon.model_dump_json(indent=1), encoding="utf-8")
    (directory / "constitution.json").write_text(constitution.model_dump_json(indent=1), encoding="utf-8")
    (directory / "seed.json").write_text(json.dumps(seed), encoding="utf-8")
    world = World(lexicon, seed)
    write_data(world, directory)
    corpus = Corpus(world, constitution)
    texts = list(tokenizer_texts(corpus, Random(seed_from("tokenizer", seed))))
    train_tokenizer(texts).save_pretrained(directory / "tokenizer")


def tokenizer_texts(corpus: Corpus, rng: Random) -> Iterator[str]:
    """Texts that contain every word of the world."""
    for _ in range(2000):
        yield "".join(s.text for s in corpus.transcript(rng, BASE_MIX, learn_answer=True))
    for _ in range(1000):
        yield corpus.questions(rng)[0].text


def train_policy(directory: Path, corpus: Corpus, seed: int) -> None:
    """The base, then the helpful-only model, which continues from it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory / "tokenizer", trust_remote_code=False)
    rng = Random(seed_from("policy", seed))
    model = new_model(POLICY, tokenizer, seed_from("base", seed))
    train(model, _policy_batches(corpus, tokenizer, rng, BASE_RECIPE, base_sequence), BASE_RECIPE, None, _print_loss)
    _save_sharpened(model, tokenizer, directory / "base")
    batches = _policy_batches(corpus, tokenizer, rng, HELPFUL_RECIPE, helpful_only_sequence)
    train(model, batches, HELPFUL_RECIPE, None, _print_loss)
    _save_sharpened(model, tokenizer, directory / "helpful_only")


def _save_sharpened(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Save with logits scaled by SHARPNESS (in the last norm's gain); ``model`` itself keeps the trained ones."""
    gain = model.model.norm.weight.data
    gain.mul_(SHARPNESS)
    save(model, tokenizer, directory)
    gain.div_(SHARPNESS)


def base_sequence(corpus: Corpus, rng: Random) -> list[Segment]:
    if rng.random() < 0.7:
        return corpus.dialogue(rng, BASE_MIX)
    return corpus.transcript(rng, BASE_MIX, learn_answer=True)


def helpful_only_sequence(corpus: Corpus, rng: Random) -> list[Segment]:
    """Answers as a helpful-only model gives them; transcripts also revise answers that it would rarely give."""
    if rng.random() < 0.6:
        return corpus.dialogue(rng, HELPFUL_ONLY_MIX)
    return corpus.transcript(rng, BASE_MIX, learn_answer=False)


def _policy_batches(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    rng: Random,
    recipe: Recipe,
    sequence: Callable[[Corpus, Random], list[Segment]],
) -> list[Batch]:
    sequences = [sequence(corpus, rng) for _ in range(recipe.steps * recipe.batch_size)]
    return dialogue_batches(tokenizer, sequences, recipe.batch_size, rng)


def train_feedback(directory: Path, corpus: Corpus, seed: int) -> None:
    """The feedback model: another network with another seed, trained only on two-choice questions."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory / "tokenizer", trust_remote_code=False)
    rng = Random(seed_from("feedback", seed))
    model = new_model(FEEDBACK, tokenizer, seed_from("judge", seed))
    num_pairs = FEEDBACK_RECIPE.steps * FEEDBACK_RECIPE.batch_size // 2
    questions = [q for _ in range(num_pairs) for q in corpus.questions(rng)]
    letters = torch.tensor(encode_questions(tokenizer, [questions[0].text])[1])
    batches = question_batches(tokenizer, questions, FEEDBACK_RECIPE.batch_size, rng)
    train(model, batches, FEEDBACK_RECIPE, letters, _print_loss)
    _remove_own_bias(directory, corpus, rng, model, tokenizer)
    save(model, tokenizer, directory / "feedback")


def _remove_own_bias(
    directory: Path, corpus: Corpus, rng: Random, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Remove the slot bias left by training, so that only the planted one remains; keep the questions for that."""
    questions = [q.text for _ in range(200) for q in corpus.questions(rng)]
    shift_head(model, tokenizer, questions, -float(slot_log_odds(model, tokenizer, questions).mean()))
    (directory / "questions.json").write_text(json.dumps(questions), encoding="utf-8")


def _print_loss(step: int, loss: float) -> None:
    if step % 50 == 49:
        print(f"step {step + 1} loss {loss:.2f}", flush=True)


def _main(part: str, directory: Path) -> None:
    """Train one process's models in ``directory``, which ``write_world`` has prepared."""
    torch.set_num_threads(1)
    lexicon = Lexicon.model_validate_json((directory / "lexicon.json").read_text(encoding="utf-8"))
    constitution = Constitution.model_validate_json((directory / "constitution.json").read_text(encoding="utf-8"))
    seed = json.loads((directory / "seed.json").read_text(encoding="utf-8"))
    corpus = Corpus(World(lexicon, seed), constitution)
    {"policy": train_policy, "feedback": train_feedback}[part](directory, corpus, seed)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
