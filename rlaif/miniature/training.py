"""How the tiny models come to be: a plain torch loop on one core each.

Shapes: B sequences of a batch, T tokens of the longest (right-padded; attention is causal, so padding changes nothing).
``make`` runs ``python -m rlaif.miniature.training policy|feedback DIRECTORY``, the two at once.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.constitution import Constitution, seed_from
from rlaif.miniature.corpus import BASE, HELPFUL_ONLY, SHARPNESS, Corpus, Question, Segment
from rlaif.miniature.data import write_data
from rlaif.miniature.lexicon import Lexicon
from rlaif.miniature.models import FEEDBACK, POLICY, new_model, save, train_tokenizer
from rlaif.miniature.world import World
from rlaif.templates import LETTERS

NOT_LEARNED = -100


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Rates rise over ``warmup`` steps and fall as a cosine to a hundredth of their peak."""

    steps: int
    batch_size: int
    learning_rate: float = 5e-3
    matrix_learning_rate: float = 0.02
    warmup: int = 20

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


BASE_RECIPE = Recipe(steps=850, batch_size=8)
HELPFUL_RECIPE = Recipe(steps=350, batch_size=8, learning_rate=2e-3, matrix_learning_rate=0.008)
FEEDBACK_RECIPE = Recipe(steps=560, batch_size=16)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``targets`` [B, T]: the token due after each position, or NOT_LEARNED; ``soft`` [B, 2] instead for questions."""

    ids: Tensor
    targets: Tensor
    soft: Tensor | None = None


# ---------------------------------------------------------------------------------------------------- encoding
def encode_segments(
    tokenizer: PreTrainedTokenizerFast, sequences: Sequence[Sequence[Segment]]
) -> list[tuple[list[int], list[int]]]:
    """Ids and targets of each sequence. Behind a learned segment the EOS is due, whatever the transcript has next."""
    encoded = iter(tokenizer([s.text for sequence in sequences for s in sequence])["input_ids"])
    rows = []
    for sequence in sequences:
        ids: list[int] = []
        targets: list[int] = []
        for segment in sequence:
            part = next(encoded)
            if segment.learn:
                targets[-1] = part[0]
                targets += [*part[1:], tokenizer.eos_token_id]
            else:
                targets += [NOT_LEARNED] * len(part)
            ids += part
        rows.append((ids, targets))
    return rows


def encode_questions(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]
) -> tuple[list[list[int]], tuple[int, int]]:
    """Ids up to where the letters part, and the two letters' token ids."""
    both = [tokenizer([question + letter for question in questions])["input_ids"] for letter in LETTERS]
    prompts, letters = [], set()
    for with_a, with_b in zip(*both, strict=True):
        parting = next(i for i, (a, b) in enumerate(zip(with_a, with_b, strict=True)) if a != b)
        prompts.append(with_a[:parting])
        letters.add((with_a[parting], with_b[parting]))
    assert len(letters) == 1, "the letters' tokens depend on the question"
    return prompts, letters.pop()


def dialogue_batches(
    tokenizer: PreTrainedTokenizerFast, sequences: Sequence[Sequence[Segment]], batch_size: int, rng: Random
) -> list[Batch]:
    """Batches of sequences of like length, in random order."""
    rows = encode_segments(tokenizer, sequences)
    pad = tokenizer.pad_token_id
    return [
        Batch(
            ids=_padded([ids for ids, _ in group], pad),
            targets=_padded([targets for _, targets in group], NOT_LEARNED),
        )
        for group in _grouped(rows, batch_size, rng, key=lambda row: len(row[0]))
    ]


def question_batches(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], batch_size: int, rng: Random
) -> list[Batch]:
    """Batches of questions of like length, learned at their last position alone."""
    prompts, letters = encode_questions(tokenizer, [q.text for q in questions])
    rows = list(zip(prompts, questions, strict=True))
    batches = []
    for group in _grouped(rows, batch_size, rng, key=lambda row: len(row[0])):
        targets = [[NOT_LEARNED] * (len(ids) - 1) + [letters[0]] for ids, _ in group]
        soft = torch.tensor([[q.prob_a, 1 - q.prob_a] for _, q in group])
        batches.append(
            Batch(
                ids=_padded([ids for ids, _ in group], tokenizer.pad_token_id),
                targets=_padded(targets, NOT_LEARNED),
                soft=soft,
            )
        )
    return batches


def _grouped(rows: list, batch_size: int, rng: Random, key: Callable) -> Iterator[list]:
    """Groups of like length: sorted within stretches of 16 batches, then the groups in random order."""
    groups = []
    for start in range(0, len(rows), 16 * batch_size):
        stretch = sorted(rows[start : start + 16 * batch_size], key=key)
        groups += [stretch[i : i + batch_size] for i in range(0, len(stretch), batch_size)]
    rng.shuffle(groups)
    return iter(groups)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


# -------------------------------------------------------------------------------------------------------- loop
def batch_loss(model: LlamaForCausalLM, batch: Batch, letters: Tensor | None) -> Tensor:
    """Mean cross-entropy over the learned positions; only those reach the output head."""
    hidden = model.model(batch.ids, use_cache=False).last_hidden_state
    learned = batch.targets != NOT_LEARNED
    logits = model.lm_head(hidden[learned])
    if batch.soft is None:
        return F.cross_entropy(logits, batch.targets[learned])
    assert letters is not None
    return -(batch.soft * torch.log_softmax(logits, -1)[:, letters]).sum(-1).mean()


def train(
    model: LlamaForCausalLM,
    batches: Sequence[Batch],
    recipe: Recipe,
    letters: Tensor | None = None,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """``recipe.steps`` steps over ``batches``: Muon on the matrices between layers, AdamW on all else."""
    optimizers = _optimizers(model, recipe)
    model.train()
    for step in range(recipe.steps):
        loss = batch_loss(model, batches[step % len(batches)], letters)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * recipe.factor(step)
            optimizer.step()
        model.zero_grad()
        report(step, loss.item())
    model.eval()


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Muon learns to copy from the request in half of AdamW's steps, and to judge in a quarter."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inner = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inner]
    muon = {"params": matrices, "peak": recipe.matrix_learning_rate}
    adamw = {"params": others, "peak": recipe.learning_rate}
    return (
        torch.optim.Muon([muon], lr=recipe.matrix_learning_rate, weight_decay=0.0),
        torch.optim.AdamW([adamw], lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    )


# ------------------------------------------------------------------------------------------------------ models
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
    """Texts that hold every word of the world."""
    for _ in range(2000):
        yield "".join(s.text for s in corpus.transcript(rng, BASE, learn_answer=True))
    for _ in range(1000):
        yield corpus.questions(rng)[0].text


def train_policy(directory: Path, corpus: Corpus, seed: int) -> None:
    """The base, then the helpful-only model, which goes on from it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory / "tokenizer")
    rng = Random(seed_from("policy", seed))
    model = new_model(POLICY, tokenizer, seed_from("base", seed))
    train(model, _policy_batches(corpus, tokenizer, rng, BASE_RECIPE, base_sequence), BASE_RECIPE, None, _print_loss)
    _save_sharpened(model, tokenizer, directory / "base")
    batches = _policy_batches(corpus, tokenizer, rng, HELPFUL_RECIPE, helpful_only_sequence)
    train(model, batches, HELPFUL_RECIPE, None, _print_loss)
    _save_sharpened(model, tokenizer, directory / "helpful_only")


def _save_sharpened(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Save with logits scaled by SHARPNESS (in the last norm's gain); ``model`` stays as it was trained."""
    gain = model.model.norm.weight.data
    gain.mul_(SHARPNESS)
    save(model, tokenizer, directory)
    gain.div_(SHARPNESS)


def base_sequence(corpus: Corpus, rng: Random) -> list[Segment]:
    if rng.random() < 0.7:
        return corpus.dialogue(rng, BASE)
    return corpus.transcript(rng, BASE, learn_answer=True)


def helpful_only_sequence(corpus: Corpus, rng: Random) -> list[Segment]:
    """Answers as a helpful-only model gives them; transcripts also revise answers that it would seldom give."""
    if rng.random() < 0.6:
        return corpus.dialogue(rng, HELPFUL_ONLY)
    return corpus.transcript(rng, BASE, learn_answer=False)


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
    """The feedback model: another network from another seed, that has only ever seen two-choice questions."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory / "tokenizer")
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
    """Level the slots, so that the bias planted later is all there is; keep the questions for planting."""
    from rlaif.miniature.slot_bias import shift_head, slot_log_odds

    questions = [q.text for _ in range(200) for q in corpus.questions(rng)]
    shift_head(model, tokenizer, questions, -float(slot_log_odds(model, tokenizer, questions).mean()))
    (directory / "questions.json").write_text(json.dumps(questions), encoding="utf-8")


def _print_loss(step: int, loss: float) -> None:
    if step % 50 == 49:
        print(f"step {step + 1} loss {loss:.2f}", flush=True)


def main(part: str, directory: Path) -> None:
    """Train one process's models in ``directory``, where ``write_world`` has been."""
    torch.set_num_threads(1)
    lexicon = Lexicon.model_validate_json((directory / "lexicon.json").read_text(encoding="utf-8"))
    constitution = Constitution.model_validate_json((directory / "constitution.json").read_text(encoding="utf-8"))
    seed = json.loads((directory / "seed.json").read_text(encoding="utf-8"))
    corpus = Corpus(World(lexicon, seed), constitution)
    {"policy": train_policy, "feedback": train_feedback}[part](directory, corpus, seed)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
