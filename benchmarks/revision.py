"""Does critique-revision run at engine speed? The pipeline's tokens per second against the same requests all at once.

    python -m benchmarks.revision --json FILE

K = 2 rounds, so each dialogue takes five turns in sequence: answer, critique, revision, critique, revision. Bound: bare
vLLM gets every turn's recorded prompt and output length at once, each seeded as in the system, so that no turn waits
for another. There are several times more dialogues than the engine holds, as in a real run, so that the tail of the
last dialogues weighs little.
System: one generator in its actor, the pool, the journal. The two alternate, with new seeds in each round; figures are
medians. ``prefix_hit_rate``: share of the system's prompt tokens found in the prefix cache, by the engine's own counter
(all turns of a dialogue run on one engine). Goal: ``ratio`` at least 0.85.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.cluster.start import open_cluster
from actors.pool.pool import RayPools
from benchmarks.bare_vllm import Bare, BareEngine
from benchmarks.machine import publish
from rlaif.config.schema import Config, Miniature
from rlaif.constitution.principles import Constitution, load_constitution
from rlaif.data.prompts import read_prompts
from rlaif.miniature.make import make
from rlaif.prompting.dialogues import HumanAssistant
from rlaif.prompting.tokenization import encode, load_tokenizer, prompt_ids
from rlaif.records import Prompt, RevisionChain
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir
from rlaif.tasks.critique_revision import Revise

ROUNDS = 3


def requests_of(chain: RevisionChain, constitution: Constitution, tokenizer: Any) -> Iterator[Bare]:
    """One request for each turn of a finished chain: its prompt, and as many tokens as were generated (with EOS)."""
    form = HumanAssistant()
    principles = {principle.id: principle for principle in constitution.for_revision}

    def turn(prompt: str, answer: str) -> Bare:
        num_tokens = len(encode(tokenizer, form.answer_prefix + answer)) + 1
        return Bare(prompt_ids=tuple(prompt_ids(tokenizer, prompt)), max_tokens=num_tokens)

    answer = chain.response
    yield turn(form.prompt(chain.prompt), answer)
    for round in chain.rounds:
        principle = principles[round.principle_id]
        yield turn(form.critique(chain.prompt, answer, principle), round.critique)
        yield turn(form.revision(chain.prompt, answer, principle, round.critique), round.revision)
        answer = answer if round.flaw else round.revision


async def system_round(run: Run, number: int, task: Revise, prompts: Sequence[Prompt]) -> float:
    began = time.perf_counter()
    model = run.config.generator.model
    chains = Recording(kind=_kind(number), task=task, rows=lambda: prompts, role="generator", model=model)
    await record(run, chains)
    return time.perf_counter() - began


def _kind(number: int) -> str:
    return f"revisions/{number}"


def one_round(
    run: Run, number: int, task: Revise, prompts: Sequence[Prompt], bare: BareEngine, loop: Any
) -> dict[str, float]:
    seconds = loop.run_until_complete(system_round(run, number, task, prompts))
    chains = list(run.run_dir.journal.records(RevisionChain, _kind(number)))
    assert len(chains) == len(prompts)
    tokenizer = load_tokenizer(run.config.generator.model)
    requests = [r for chain in chains for r in requests_of(chain, task.constitution, tokenizer)]
    timings = {way: bare.time(requests, way) for way in ("generate", "step")}
    num_tokens = sum(request.max_tokens for request in requests)
    return {
        "tokens": num_tokens,
        "turns": len(requests),
        "system_s": seconds,
        **{f"bound_{way}_s": timing.seconds for way, timing in timings.items()},
        "bound_s": min(timing.seconds for timing in timings.values()),
    }


def measure(num_prompts: int) -> dict[str, Any]:
    constitution = load_constitution("sixteen_principles")
    miniature = make(Miniature(), constitution)
    model = str(miniature.path("helpful_only"))
    all_prompts = list(read_prompts(str(miniature.path("red_team")), "red_team", lambda row: None))
    with tempfile.TemporaryDirectory() as directory:
        config = _config(f"{directory}/run", model)
        task = Revise(
            seed=0,
            constitution=constitution,
            settings=config.critique_revision,
            dialogue_format=config.dialogue_format,
            sampling=config.sampling,
        )
        bare, loop = BareEngine(model, config.generator), asyncio.new_event_loop()
        with open_cluster(config):
            run = Run(
                config=config,
                constitution=constitution,
                run_dir=RunDir(Path(directory) / "run", config),
                paths={},
                pools=RayPools(config),
                trainers=None,  # type: ignore[arg-type]  # nothing is trained
                progress=Silent(),
            )
            loop.run_until_complete(run.start("generator", model))
            pool = run.current_pool("generator")
            one_round(run, -1, task, all_prompts[:50], bare, loop)  # warms everything up
            before = loop.run_until_complete(pool.prefix_hits())
            rounds = []
            for number in range(ROUNDS):
                reseeded = replace(task, seed=number)
                rounds.append(one_round(run, number, reseeded, all_prompts[50 : 50 + num_prompts], bare, loop))
            after = loop.run_until_complete(pool.prefix_hits())
            loop.run_until_complete(run.release())
            run.run_dir.close()
        bare.close()
    return summary(rounds, num_prompts, (after[0] - before[0]) / max(1, after[1] - before[1]))


def _config(run_dir: str, model: str) -> Config:
    engine = {"threads": 2, "max_length": 512, "max_in_flight": 256, "chunk_rows": 64, "kv_cache_gib": 0.5}
    return Config.model_validate(
        {
            "run_dir": run_dir,
            "generator": {**engine, "model": model},
            "sampling": {"max_tokens": 48},
            "critique_revision": {"rounds": 2, "max_critique_tokens": 48, "max_revision_tokens": 48},
            "resources": {"cpus": 2},
        }
    )


def summary(rounds: Sequence[dict[str, float]], num_prompts: int, hit_rate: float) -> dict[str, Any]:
    """Medians over the rounds; ``ratio`` is the median of the rounds' ratios."""
    return {
        "pipeline_tokens_per_s": statistics.median(r["tokens"] / r["system_s"] for r in rounds),
        "bound_tokens_per_s": statistics.median(r["tokens"] / r["bound_s"] for r in rounds),
        "ratio": statistics.median(r["bound_s"] / r["system_s"] for r in rounds),
        "prefix_hit_rate": hit_rate,
        "num_prompts": num_prompts,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--prompts", type=int, default=1150)
    arguments = parser.parse_args()
    publish(measure(arguments.prompts), arguments.json)


if __name__ == "__main__":
    main()
