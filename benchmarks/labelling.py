"""What do labels cost? The system's judgements per second against bare vLLM's; the second order; four principles.

    python -m benchmarks.labelling --json FILE

The miniature's feedback model judges dialogues of 300 tokens with answers of 24. Raw: bare vLLM gets exactly the token
ids that the system would send, in both orders and all at once, with the same engine arguments, threads and prefix
cache; the faster of one batch call and a stepped engine counts. System: one labeller in its actor, the pool, the
journal. The two alternate, with fresh dialogues in each round so that nothing is cached from before; figures are
medians of rounds.

``both_orders_cost``: bare vLLM's time for both orders over that for first orders only. ``four_principles_cost``: the
system's time with ``labelling.principles=4`` over that with 1. ``prefix_hit_rate``: share of the system's prompt tokens
found in the prefix cache.
Goals on two cores: ``ratio_to_raw`` at least 0.9, ``both_orders_cost`` at most 1.5, ``four_principles_cost`` at most
2.8.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.cluster.start import open_cluster
from actors.pool.pool import RayPools
from benchmarks.bare_vllm import Bare, BareEngine
from benchmarks.machine import publish
from rlaif.config.schema import Config, Labelling, Miniature
from rlaif.constitution.principles import Constitution, load_constitution
from rlaif.data.comparisons import unsampled_comparison
from rlaif.miniature.make import MiniaturePaths, make
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import Comparison, Turn
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir
from rlaif.tasks.labelling import Label

DIALOGUE_TOKENS, ANSWER_TOKENS = 300, 24
ROUNDS = 5


# ---------------------------------------------------------------------------------------------------- the workload
class Texts:
    """Distinct texts of a given number of tokens, built from the miniature's own sentences."""

    def __init__(self, miniature: MiniaturePaths, seed: int = 0) -> None:
        self.tokenizer: Any = load_tokenizer(miniature.path("feedback"))
        rows = miniature.path("helpful_pairs").read_text().splitlines()
        self._sentences = [json.loads(row)["chosen"] for row in rows]
        self._rng = random.Random(seed)

    def of(self, num_tokens: int) -> str:
        words = f"Number {self._rng.randrange(10**9)}."
        ids: list[int] = self.tokenizer(words)["input_ids"]
        while len(ids) < num_tokens:
            words += f" {self._rng.choice(self._sentences)}"
            ids = self.tokenizer(words)["input_ids"]
        return self.tokenizer.decode(ids[:num_tokens]).strip()

    def pair(self, id: str) -> Comparison:
        turns = [Turn(role=role, text=self.of(DIALOGUE_TOKENS // 3)) for role in ("human", "assistant", "human")]
        return unsampled_comparison(id, tuple(turns), self.of(ANSWER_TOKENS), self.of(ANSWER_TOKENS))


class Recorder:
    """A ChoiceScorer that records its requests, so that bare vLLM gets exactly the same token ids."""

    max_length, model_version, policy_version = 4096, "recorder", 0

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.requests: list[Bare] = []

    async def choice_logprobs(self, prompt_ids: Sequence[int], choice_ids: Sequence[int]) -> tuple[float, ...]:
        self.requests.append(Bare(prompt_ids=tuple(prompt_ids), choice_ids=tuple(choice_ids)))
        return tuple(-0.69 for _ in choice_ids)


def requests_of(pairs: Sequence[Comparison], task: Label, tokenizer: Any) -> list[Bare]:
    """The requests that the system would make for ``pairs``; a pair's two orders are adjacent."""

    async def ask() -> list[Bare]:
        recorder = Recorder(tokenizer)
        for pair in pairs:
            await task(recorder, pair)  # type: ignore[arg-type]  # only asked for choices
        return recorder.requests

    return asyncio.run(ask())


def label_task(constitution: Constitution, principles: int) -> Label:
    return Label(
        seed=0,
        constitution=constitution,
        settings=Labelling(principles=principles, min_letter_mass=0.0),
        dialogue_format="human_assistant",
    )


# -------------------------------------------------------------------------------------------------------- measuring
class System:
    """One labeller in a pool; its results are journalled."""

    def __init__(self, run: Run, model: str) -> None:
        self._run, self._model = run, model

    async def time(self, kind: str, task: Label, pairs: Sequence[Comparison]) -> float:
        began = time.perf_counter()
        labels = Recording(kind=kind, task=task, rows=lambda: pairs, role="labeller", model=self._model)
        await record(self._run, labels)
        return time.perf_counter() - began


def one_round(number: int, num_pairs: int, texts: Texts, bare: BareEngine, system: System, loop: Any) -> dict[str, Any]:
    constitution = load_constitution("sixteen_principles")
    once, fourfold = label_task(constitution, 1), label_task(constitution, 4)

    def fresh(name: str, num: int) -> list[Comparison]:
        return [texts.pair(f"{name}-{number}-{i}") for i in range(num)]

    times: dict[str, Any] = {}
    for way in ("generate", "step"):
        requests = requests_of(fresh(way, num_pairs), once, texts.tokenizer)
        times[way] = bare.time(requests, way)
        both = requests_of(fresh(f"first-{way}", num_pairs), once, texts.tokenizer)
        times[f"{way}_first_order"] = bare.time(both[::2], way)
    times["system"] = loop.run_until_complete(system.time(f"one/{number}", once, fresh("system", num_pairs)))
    num_few = num_pairs // 2
    times["four"] = loop.run_until_complete(system.time(f"four/{number}", fourfold, fresh("four", num_few))) * 2
    return times


def measure(num_pairs: int) -> dict[str, Any]:
    miniature = make(Miniature(), load_constitution("sixteen_principles"))
    model, texts = str(miniature.path("feedback")), Texts(miniature)
    engine = {"threads": 2, "max_length": 1024, "max_in_flight": 256, "chunk_rows": 64, "kv_cache_gib": 0.5}
    with tempfile.TemporaryDirectory() as directory:
        values = {"run_dir": f"{directory}/run", "labeller": {**engine, "model": model}, "resources": {"cpus": 2}}
        config = Config.model_validate(values)
        bare = BareEngine(model, config.labeller)
        loop = asyncio.new_event_loop()
        with open_cluster(config):
            run = Run(
                config=config,
                constitution=load_constitution("sixteen_principles"),
                run_dir=RunDir(Path(directory) / "run", config),
                paths={},
                pools=RayPools(config),
                trainers=None,  # type: ignore[arg-type]  # nothing is trained
                progress=Silent(),
            )
            loop.run_until_complete(run.start("labeller", model))
            pool = run.current_pool("labeller")
            system = System(run, model)
            one_round(-1, num_pairs // 4, texts, bare, system, loop)  # warms everything up
            hits_before = loop.run_until_complete(pool.prefix_hits())
            rounds = [one_round(n, num_pairs, texts, bare, system, loop) for n in range(ROUNDS)]
            hits = loop.run_until_complete(pool.prefix_hits())
            loop.run_until_complete(run.release())
            run.run_dir.close()
        bare.close()
    return summary(rounds, num_pairs, (hits[0] - hits_before[0]) / max(1, hits[1] - hits_before[1]))


def summary(rounds: Sequence[dict[str, Any]], num_pairs: int, hit_rate: float) -> dict[str, Any]:
    """Medians over the rounds; a ratio is the median of the rounds' ratios."""

    def median(of: Any) -> float:
        return statistics.median(of(r) for r in rounds)

    raw = {way: median(lambda r, way=way: 2 * num_pairs / r[way].seconds) for way in ("generate", "step")}
    best = max(raw, key=lambda way: raw[way])
    return {
        "raw_requests_per_s": raw[best],
        "labels_per_s": median(lambda r: num_pairs / r["system"]),
        "judgements_per_s": median(lambda r: 2 * num_pairs / r["system"]),
        "ratio_to_raw": median(lambda r: r[best].seconds / r["system"]),
        "both_orders_cost": median(lambda r: r[best].seconds / r[f"{best}_first_order"].seconds),
        "four_principles_cost": median(lambda r: r["four"] / r["system"]),
        "prefix_hit_rate": hit_rate,
        "raw_ways": raw,
        "raw_prefix_hit_rate": median(lambda r: r[best].cached),
        "num_pairs": num_pairs,
        "rounds": [{key: getattr(value, "seconds", value) for key, value in r.items()} for r in rounds],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=600)
    arguments = parser.parse_args()
    publish(measure(arguments.pairs), arguments.json)


if __name__ == "__main__":
    main()
