"""What do three rows of unreasonable size cost the thousand good ones next to them? Goal: 10% of the run at most.

    python -m benchmarks.large_rows --json FILE [--rows N] [--chars N] [--repeats N]

A row of 10 MB of line breaks, a conversation of 100,000 turns and a question of 100,000 answers stand among ``--rows``
good rows. A real model (the miniature's, with transformers, in this process) labels pairs and answers prompts; the
questions become pairs for pretraining. Each step is run without the large rows, with them as they are read by default,
which refuses them by name, and with limits that let them through to the engine. ``seconds_over_plain`` compares each
with the first (``all_steps``: over all three, which is the figure), as medians; ``good_rows_equal`` says whether the
good rows came out the same each time. Reading what is let through is linear, some 25 us for each turn: a few seconds,
and here the good rows take no longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import publish
from rlaif.algorithms.preference_model import pretraining_pairs
from rlaif.config.schema import Generator, Labeller, Labelling, Miniature, SamplingSettings
from rlaif.config.source import RowLimits
from rlaif.constitution.principles import load_constitution
from rlaif.data.comparisons import read_comparisons
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import pass_over
from rlaif.data.votes import read_votes
from rlaif.engines import open_engine
from rlaif.miniature.make import MiniaturePaths, make
from rlaif.tasks.labelling import Label
from rlaif.tasks.sampling import SampleAnswer, draws

IN_FLIGHT = 16
LIMITS = {
    "refused": RowLimits(),
    "let_through": RowLimits(max_chars=2**31, max_turns=2**31, max_answers=2**31),
}


def large_rows(num_chars: int) -> dict[str, list[dict[str, Any]]]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": "Hello."} for i in range(num_chars // 100 // 2 * 2 + 1)]
    breaks = "\n" * num_chars + "x"
    answers = [{"text": f"answer {i}", "votes": i % 100} for i in range(num_chars // 100)]
    return {
        "prompts": [{"prompt": breaks}, {"messages": turns}],
        "pairs": [
            {"prompt": breaks, "answer_1": "Yes.", "answer_2": "No."},
            {"prompt": "Why?", "answer_1": breaks, "answer_2": "No."},
            {"prompt": turns, "answer_1": "Yes.", "answer_2": "No."},
        ],
        "votes": [{"question": "Which?", "answers": answers}],
    }


def good_rows(num: int) -> dict[str, list[dict[str, Any]]]:
    return {
        "prompts": [{"prompt": f"How do I do thing {i}?"} for i in range(num)],
        "pairs": [
            {"prompt": f"How do I do thing {i}?", "answer_1": f"Ask {i} first.", "answer_2": "Just do it."}
            for i in range(num)
        ],
        "votes": [
            {"question": f"What is {i}?", "answers": [{"text": "a", "votes": 1}, {"text": "b", "votes": 9}]}
            for i in range(num)
        ],
    }


def write(path: Path, rows: list[dict[str, Any]], large: list[dict[str, Any]]) -> None:
    """The large rows stand in the middle."""
    half = len(rows) // 2
    path.write_text("".join(json.dumps(row) + "\n" for row in (*rows[:half], *large, *rows[half:])))


async def each(rows: Iterable[Any], work: Callable[[Any], Awaitable[Any]]) -> dict[str, Any]:
    """By id, with so many at once as an engine holds."""
    free, found = asyncio.Semaphore(IN_FLIGHT), {}

    async def one(row: Any) -> None:
        async with free:
            found[row.id] = await work(row)

    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(one(row))
    return found


async def label(path: Path, limits: RowLimits, models: MiniaturePaths) -> dict[str, Any]:
    engine = open_engine("labeller", models.path("feedback"), Labeller(engine="hf", max_length=512))
    task = Label(
        seed=0,
        constitution=load_constitution("sixteen_principles"),
        settings=Labelling(),
        dialogue_format="human_assistant",
    )
    try:
        rows = read_comparisons(str(path), pass_over, limits)
        found = await each(rows, lambda pair: task(engine, pair))
    finally:
        await engine.close()
    # Which rows share a batch changes the last digits of a probability.
    return {id: (one.status, one.prob and round(one.prob, 3)) for id, one in found.items()}


async def answer(path: Path, limits: RowLimits, models: MiniaturePaths) -> dict[str, Any]:
    engine = open_engine("generator", models.path("helpful_only"), Generator(engine="hf", max_length=512))
    task = SampleAnswer(snapshot="x", dialogue_format="human_assistant", sampling=SamplingSettings(max_tokens=8))
    try:
        rows = (
            draw for prompt in read_prompts(str(path), "red_team", pass_over, limits) for draw in draws(prompt, 1, 0)
        )
        found = await each(rows, lambda draw: task(engine, draw))
    finally:
        await engine.close()
    return {id: one.token_ids for id, one in found.items()}


async def pair_up(path: Path, limits: RowLimits, models: MiniaturePaths) -> dict[str, Any]:
    return {one.id: len(list(pretraining_pairs(one))) for one in read_votes(str(path), pass_over, limits)}


STEPS = {"pairs": label, "prompts": answer, "votes": pair_up}


def measure(kind: str, directory: Path, arguments: argparse.Namespace, models: MiniaturePaths) -> dict[str, Any]:
    good, large = good_rows(arguments.rows)[kind], large_rows(arguments.chars)[kind]
    path = directory / f"{kind}.jsonl"
    write(path, good[:20], [])
    asyncio.run(STEPS[kind](path, RowLimits(), models))  # libraries load and caches fill
    variants = {"plain": (RowLimits(), []), **{name: (limits, large) for name, limits in LIMITS.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for _ in range(arguments.repeats):
        for name, (limits, added) in variants.items():
            write(path, good, added)
            started = time.monotonic()
            found[name].append(asyncio.run(STEPS[kind](path, limits, models)))
            seconds[name].append(time.monotonic() - started)
    plain = found["plain"][0]
    return {
        name: {
            "seconds": round(median(seconds[name]), 3),
            "seconds_over_plain": round(median(seconds[name]) / median(seconds["plain"]), 3),
            "good_rows_equal": all(rows.get(id) == value for rows in found[name] for id, value in plain.items()),
            "large_rows_through": len(found[name][0]) - len(plain),
        }
        for name in variants
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--chars", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    models = make(Miniature(), load_constitution("sixteen_principles"))
    with tempfile.TemporaryDirectory() as directory:
        result = {kind: measure(kind, Path(directory), arguments, models) for kind in STEPS}
    sums = {name: sum(result[kind][name]["seconds"] for kind in STEPS) for name in ("plain", *LIMITS)}
    result["all_steps"] = {f"{name}_over_plain": round(sums[name] / sums["plain"], 3) for name in LIMITS}
    settings = {"rows": arguments.rows, "chars": arguments.chars, "repeats": arguments.repeats, "engine": "hf"}
    publish({**settings, **result}, arguments.json)


if __name__ == "__main__":
    main()
