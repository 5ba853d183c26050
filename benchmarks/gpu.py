"""How fast is one GPU? Labels and tokens per second, MFU of a trainer, seconds of a weight sync, parts of a PPO step.

    python -m benchmarks.gpu --json FILE

One command, one card of 80 GB, planned to end within 20 minutes. Models have the architecture of Llama-3.1-8B, random
weights, bfloat16, and are served and trained by the actors of a real run. An engine serves all 32 layers. A trainer's
states (16 bytes a parameter) do not fit one card for 32 layers, so trained models have fewer, of the same width;
``shapes`` says how many. Prompts, answers and rows are random letters of fixed lengths; few answers end early.

- ``tokens_per_s``, ``labels_per_s``: of one engine, from the first row sent to the last one back. A label is both
  orders. ``start_s``: until it serves.
- ``operations_per_s``: 6 for each trained token and parameter that multiplies (the input embedding does not), and for
  causal attention 6 * layers * width * length for each token; what is computed again does not count. ``mfu``: their
  share of the card's dense bfloat16 peak; null for a card that is not in the table.
- ``step``: one PPO step with an engine and a trainer side by side: answers, learning, weights served and proved.

Each part begins when the one before has given the card back. A part that fails is named in ``failures``, and the others
go on; the exit code is then 1.

``--dry-run`` carries out the same code at toy size on CPUs. Its file says so and holds no figure, only which figures a
GPU would have been asked for, and how long the rehearsal of each part took.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.cluster.start import open_cluster
from benchmarks.machine import publish
from benchmarks.weights import run_in_process
from rlaif.config.schema import Config, Labelling, Optimization, Reinforcement, SamplingSettings
from rlaif.config.trainer import Trainer
from rlaif.errors import describe_error

#: Dense bfloat16 operations per second, from NVIDIA's data sheets, by a part of the card's name; the first that fits.
PEAK = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12}
STEPS = 4  #: timed, after one that is not


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama. ``layers`` by the model's use."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    layers: Mapping[str, int]

    def parameters(self, layers: int) -> int:
        """That multiply: all but the input embedding."""
        kv = self.hidden * self.kv_heads // self.heads
        layer = 2 * self.hidden**2 + 2 * self.hidden * kv + 3 * self.hidden * self.intermediate
        return layers * layer + self.hidden * self.vocabulary


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run. Lengths are in tokens."""

    shape: Shape
    gpus: float
    dtype: str
    prompts: int
    prompt_tokens: int
    answer_tokens: int
    pairs: int
    sft_batch: int
    sft_tokens: int
    ppo_batch: int
    max_length: int
    micro_batch_tokens: int


FULL = Plan(
    shape=Shape(
        hidden=4096,
        intermediate=14336,
        heads=32,
        kv_heads=8,
        vocabulary=128256,
        layers={"served": 32, "supervised": 8, "reinforced": 3},
    ),
    gpus=1,
    dtype="bfloat16",
    prompts=1024,
    prompt_tokens=256,
    answer_tokens=256,
    pairs=512,
    sft_batch=32,
    sft_tokens=2048,
    ppo_batch=128,
    max_length=4096,
    micro_batch_tokens=8192,
)
TOY = Plan(
    shape=Shape(
        hidden=64,
        intermediate=128,
        heads=2,
        kv_heads=1,
        vocabulary=512,
        layers={"served": 2, "supervised": 2, "reinforced": 2},
    ),
    gpus=0,
    dtype="float32",
    prompts=8,
    prompt_tokens=32,
    answer_tokens=8,
    pairs=4,
    sft_batch=8,
    sft_tokens=64,
    ppo_batch=8,
    max_length=4096,
    micro_batch_tokens=4096,
)


# ---------------------------------------------------------------------------------------------------- models, rows
def make_random_model(shape: Shape, layers: int, path: Path) -> None:
    """Save a random Llama in bfloat16 and a byte-level tokenizer with as many tokens as the model has."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols += [f"word{number}" for number in range(len(symbols), shape.vocabulary - 2)]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: id for id, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(path)
    fast.save_pretrained(path)


def words(chance: random.Random, tokens: int) -> str:
    """A text of so many tokens, each of which is a letter."""
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=tokens))


def draws_of(plan: Plan, count: int) -> list[Any]:
    from rlaif.records import Prompt, Turn
    from rlaif.tasks.sampling import Draw

    chance, made = random.Random(0), []
    for number in range(count):
        turn = Turn(role="human", text=words(chance, plan.prompt_tokens))
        prompt = Prompt(id=f"p{number}", source_file="random", source_row=number, axis="red_team", turns=(turn,))
        made.append(Draw(id=f"d{number}", prompt=prompt, seed=number))
    return made


def pairs_of(plan: Plan) -> list[Any]:
    from rlaif.records import Comparison, Status

    chance, own = random.Random(1), {"status": Status.OK, "error": None, "seconds": 0.0, "model_version": "random"}
    return [
        Comparison.of(
            draw.prompt,
            **own,
            seed=0,
            prompt=draw.prompt.turns,
            prompt_ids=(),
            answer_1=words(chance, plan.answer_tokens),
            answer_2=words(chance, plan.answer_tokens),
            token_ids_1=(),
            token_ids_2=(),
            policy_version=0,
            truncated=False,
        )
        for draw in draws_of(plan, plan.pairs)
    ]


# ---------------------------------------------------------------------------------------------------------- parts
class Bench:
    """Runs the parts. ``directory``: where models and rows lie."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan, self._directory = plan, directory

    def _model(self, use: str) -> str:
        path = self._directory / use
        if not path.is_dir():
            run_in_process(make_random_model, self._plan.shape, self._plan.shape.layers[use], path)
        return str(path)

    def _pool(self, role: str, fraction: float) -> dict[str, Any]:
        plan = self._plan
        share = {"gpus": plan.gpus and (1 if fraction > 0.5 else 0.4), "gpu_memory_fraction": fraction}
        return {role: {**share, "dtype": plan.dtype, "max_length": plan.max_length, "kv_cache_gib": 0.5, "threads": 1}}

    async def _rows(self, pool: Any, task: Any, rows: list[Any]) -> list[Any]:
        done = [one async for back in pool.run(task, rows) for one in back]
        failures = [one.failure.cause for one in done if one.failure]
        if failures:
            raise RuntimeError(f"{len(failures)} of {len(rows)} rows failed: {failures[0]}")
        return [one.record for one in done]

    async def _timed(self, role: str, task: Any, rows: list[Any]) -> tuple[float, float, list[Any]]:
        """Seconds until the engine has started, seconds for all rows, and their records; a few rows warm it up."""
        from actors.pool.pool import RayPools

        pools, started = RayPools(Config.model_validate(self._pool(role, 0.9))), time.perf_counter()
        pool = await pools.open(role, self._model("served"))
        start_s = time.perf_counter() - started
        try:
            await self._rows(pool, task, rows[:4])
            began = time.perf_counter()
            records = await self._rows(pool, task, rows)
            return start_s, time.perf_counter() - began, records
        finally:
            await pool.close()

    def _rollout(self) -> Any:
        from rlaif.tasks.sampling import RollOut

        sampling = SamplingSettings(max_tokens=self._plan.answer_tokens)
        return RollOut(dialogue_format="human_assistant", sampling=sampling)

    async def generation(self) -> dict[str, float]:
        start_s, seconds, records = await self._timed(
            "generator", self._rollout(), draws_of(self._plan, self._plan.prompts)
        )
        tokens = sum(len(record.completion.token_ids) for record in records)
        return {"tokens_per_s": tokens / seconds, "start_s": start_s}

    async def labelling(self) -> dict[str, float]:
        from rlaif.constitution.principles import load_constitution
        from rlaif.tasks.labelling import Label

        task = Label(
            seed=0,
            constitution=load_constitution("sixteen_principles"),
            settings=Labelling(min_letter_mass=0.0),
            dialogue_format="human_assistant",
        )
        start_s, seconds, records = await self._timed("labeller", task, pairs_of(self._plan))
        return {"labels_per_s": len(records) / seconds, "start_s": start_s}

    async def supervision(self) -> dict[str, float]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from actors.trainer.trainer import RayTrainers
        from rlaif.jobs import SFTJob

        plan, chance = self._plan, random.Random(2)
        rows = [
            {
                "id": str(number),
                "input_ids": [chance.randrange(200) for _ in range(plan.sft_tokens)],
                "prompt_length": 1,  # every token but the first is learned
            }
            for number in range((STEPS + 1) * plan.sft_batch)
        ]
        dataset = self._directory / "sft.parquet"
        pq.write_table(pa.Table.from_pylist(rows), dataset)
        ends: list[float] = []
        job = SFTJob(
            base_model=self._model("supervised"),
            dataset=str(dataset),
            output=str(self._directory / "out"),
            max_length=plan.sft_tokens,
            optimization=Optimization(batch_size=plan.sft_batch),
            trainer=self._trainer(plan.gpus),
            seed=0,
        )
        trainers = RayTrainers(self._directory, lambda name, metrics: ends.append(time.perf_counter()))
        await trainers.supervise(job)
        step_s = (ends[-1] - ends[0]) / (len(ends) - 1)
        tokens = plan.sft_batch * plan.sft_tokens
        operations = tokens * self._operations("supervised")
        return {"step_s": step_s, "tokens_per_s": tokens / step_s, "operations_per_s": operations / step_s}

    def _trainer(self, gpus: float) -> Trainer:
        plan = self._plan
        return Trainer.model_validate(
            {"gpus": gpus, "dtype": plan.dtype, "zero_stage": 1, "micro_batch_tokens": plan.micro_batch_tokens}
        )

    def _operations(self, use: str) -> float:
        """For one token of a training pass."""
        shape, layers = self._plan.shape, self._plan.shape.layers[use]
        return 6 * shape.parameters(layers) + 6 * layers * shape.hidden * self._plan.sft_tokens

    async def step(self) -> dict[str, float]:
        from actors.pool.pool import RayPools
        from actors.trainer.trainer import RayTrainers
        from rlaif.jobs import PPOJob

        plan, model = self._plan, self._model("reinforced")
        job = PPOJob(
            policy=model,
            preference_model=None,
            settings=Reinforcement(batch_size=plan.ppo_batch, minibatch_size=plan.ppo_batch // 4),
            temperature=1.0,
            trainer=self._trainer(0.6 if plan.gpus else 0),
            seed=0,
        )
        pool = await RayPools(Config.model_validate(self._pool("generator", 0.15))).open("generator", model)
        learner = None
        try:
            learner = await RayTrainers(self._directory).policy_learner(job)
            parts = [await self._one_step(pool, learner) for _ in range(STEPS + 1)][1:]
        finally:
            await asyncio.gather(pool.close(), *([learner.close()] if learner else []))
        return {name: statistics.median(part[name] for part in parts) for name in parts[0]}

    async def _one_step(self, pool: Any, learner: Any) -> dict[str, float]:
        from rlaif.records import ScoredSample

        times = [time.perf_counter()]
        records = await self._rows(pool, self._rollout(), draws_of(self._plan, self._plan.ppo_batch))
        times.append(time.perf_counter())
        chance = random.Random(3)
        samples = [
            ScoredSample(
                id=record.id,
                axis=record.axis,
                prompt_ids=record.prompt_ids,
                response_ids=record.completion.token_ids,
                logprobs=record.completion.logprobs,
                finish_reason=record.completion.finish_reason,
                score=chance.gauss(0, 1),
                policy_version_start=record.completion.policy_version_start,
                preference_model_version=0,
            )
            for record in records
        ]
        await learner.learn(samples)
        times.append(time.perf_counter())
        await pool.update_weights(await learner.weights())
        times.append(time.perf_counter())
        generate, learn, sync = (after - before for before, after in itertools.pairwise(times))
        return {"generate_s": generate, "learn_s": learn, "sync_s": sync, "step_s": generate + learn + sync}


# ------------------------------------------------------------------------------------------------------- the result
def card() -> dict[str, Any] | None:
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "peak_bfloat16": next((peak for name, peak in PEAK.items() if name in properties.name), None),
    }


def with_mfu(figures: Mapping[str, float], peak: float | None) -> dict[str, float | None]:
    """Figures as they are reported."""
    rounded: dict[str, float | None] = {name: round(value, 4) for name, value in figures.items()}
    if "operations_per_s" in figures:
        rounded["mfu"] = round(figures["operations_per_s"] / peak, 4) if peak else None
    return rounded


async def measure(parts: Mapping[str, Callable[[], Awaitable[dict[str, float]]]], dry: bool) -> dict[str, Any]:
    """The figures of each part; of a dry run, only their names."""
    gpu = card()
    result: dict[str, Any] = {}
    failures: dict[str, str] = {}
    for name, part in parts.items():
        began = time.perf_counter()
        try:
            figures = await part()
        except Exception as error:
            traceback.print_exc()
            failures[name] = describe_error(error)
            continue
        seconds = round(time.perf_counter() - began, 1)
        if dry:
            result[name] = {"rehearsed_in_s": seconds, "would_report": sorted(with_mfu(figures, None))}
        else:
            result[name] = {**with_mfu(figures, gpu and gpu["peak_bfloat16"]), "part_s": seconds}
        print(name, result[name], flush=True)
    return {"gpu": gpu, "parts": result, "failures": failures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="the same code at toy size on CPUs; reports no figure")
    arguments = parser.parse_args()
    plan = TOY if arguments.dry_run else FULL
    if card() is None and not arguments.dry_run:
        parser.error("torch finds no GPU on this machine; --dry-run rehearses on CPUs")
    resources = {"cpus": 8, "gpus": int(plan.gpus), "object_store_gib": 0.5 if arguments.dry_run else 24.0}
    with tempfile.TemporaryDirectory() as directory, open_cluster(Config.model_validate({"resources": resources})):
        bench = Bench(plan, Path(directory))
        parts = {part.__name__: part for part in (bench.generation, bench.labelling, bench.supervision, bench.step)}
        result = asyncio.run(measure(parts, arguments.dry_run))
    shapes = {"layers": dict(plan.shape.layers), "hidden": plan.shape.hidden, "vocabulary": plan.shape.vocabulary}
    publish({"dry_run": arguments.dry_run, **result, "shapes": shapes}, arguments.json)
    if result["failures"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
