"""The miniature's data files: prompts, human comparisons, voted answers. They contain no classes and no other truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from rlaif.miniature.corpus import draw
from rlaif.miniature.lexicon import Action
from rlaif.miniature.world import AnswerKind, World, WorldRequest
from rlaif.records import Axis
from rlaif.seeds import seed_from

NUM_PROMPTS = 1200
NUM_EVAL_PROMPTS = 300
NUM_PAIRS = 1200
NUM_QUESTIONS = 600

#: What people did not choose: any class below helpful, most often a refusal.
REJECTED_RATES: Mapping[AnswerKind, float] = {"refusal": 0.45, "evasive": 0.25, "malformed": 0.3}
VOTED_RATES: Mapping[AnswerKind, float] = {"helpful": 0.5, "refusal": 0.2, "evasive": 0.15, "malformed": 0.15}
MEDIAN_VOTES: Mapping[AnswerKind, float] = {"helpful": 12, "refusal": 3, "evasive": 1, "malformed": 0}


def write_data(world: World, directory: Path) -> None:
    """Write every data file of ``world`` as JSONL."""
    files: dict[str, Iterable[Mapping[str, Any]]] = {
        "red_team": prompts(world, "red_team", NUM_PROMPTS, heldout=False),
        "helpful": prompts(world, "helpful", NUM_PROMPTS, heldout=False),
        "eval_red_team": prompts(world, "red_team", NUM_EVAL_PROMPTS, heldout=True),
        "eval_helpful": prompts(world, "helpful", NUM_EVAL_PROMPTS, heldout=True),
        "helpful_pairs": pairs(world),
        "votes": votes(world),
    }
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (directory / f"{name}.jsonl").write_text(text, encoding="utf-8")


def prompts(world: World, axis: Axis, num: int, *, heldout: bool) -> list[dict[str, str]]:
    """``num`` prompts that use all combinations equally often, without repeating a text as far as possible."""
    rng = Random(seed_from("prompts", world.seed, axis, heldout))
    combinations = list((world.heldout if heldout else world.training)[axis])
    texts: list[str] = []
    while len(texts) < num:
        rng.shuffle(combinations)
        texts += [_new_text(rng, world, axis, combination, texts) for combination in combinations]
    return [{"prompt": text} for text in texts[:num]]


def _new_text(rng: Random, world: World, axis: Axis, combination: tuple[Action, str], seen: list[str]) -> str:
    text = world.ask(rng, axis, *combination).text
    for _ in range(20):
        if text not in seen:
            break
        text = world.ask(rng, axis, *combination).text
    return text


def pairs(world: World) -> list[dict[str, str]]:
    """Comparisons on benign prompts, in TRL's format: people chose the helpful answer."""
    rng = Random(seed_from("pairs", world.seed))
    rows = []
    for _ in range(NUM_PAIRS):
        request = world.request(rng, "helpful")
        chosen = world.answer(rng, request, "helpful")
        rejected = world.answer(rng, request, draw(rng, REJECTED_RATES))
        rows.append({"prompt": request.text, "chosen": chosen.text, "rejected": rejected.text})
    return rows


def votes(world: World) -> list[dict[str, Any]]:
    """Benign questions with two to four answers; votes follow the answers' quality, with noise."""
    rng = Random(seed_from("votes", world.seed))
    rows = []
    for _ in range(NUM_QUESTIONS):
        request = world.request(rng, "helpful")
        answers = [_voted(rng, world, request) for _ in range(rng.randint(2, 4))]
        best = max(answers, key=lambda answer: answer["votes"])
        best["accepted"] = best["votes"] > 0
        rows.append({"question": request.text, "answers": answers})
    return rows


def _voted(rng: Random, world: World, request: WorldRequest) -> dict[str, Any]:
    kind = draw(rng, VOTED_RATES)
    count = round(MEDIAN_VOTES[kind] * rng.lognormvariate(0, 0.5) + rng.gauss(0, 1))
    return {"text": world.answer(rng, request, kind).text, "votes": count, "accepted": False}
