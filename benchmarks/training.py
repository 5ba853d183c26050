"""Training against TRL on the same work: supervised fine-tuning, preference models, and whole reinforcement stages.

    python -m benchmarks.training --data hh_harmless_pairs.jsonl --json benchmarks/results/training.json

Both sides have the same rows in the same order, maximum length, global batch, optimizer, dtype, thread count and
initial weights; neither packs. Ours goes through the DeepSpeed rank code of a real run. TRL runs at its best: no
gradient checkpointing, no logging, and the fastest of several per-device batch sizes and sampling strategies, chosen in
a first round; ours chooses its micro-batch size in the same way. Then the two alternate, and the medians over all
rounds are reported. Rates count non-padding tokens from the end of the first optimizer step to the end of the last.
Both final models are evaluated on the same held-out rows with the same stock forward pass.

Each side has one long-lived process, so that neither's global state affects the other; while one works, the other
idles. ``benchmarks.reinforcement`` describes the comparison of reinforcement stages.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import reinforcement

HIDDEN, LAYERS, VOCABULARY = 128, 4, 1000
MAX_LENGTH = 512
BATCH_SIZE = 32
LEARNING_RATES = {"sft": 3e-3, "pm": 1e-3}
NUM_STEPS = {"sft": 12, "pm": 6}
BETAS = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Files that both sides train on."""

    model: str
    rows: dict[str, str]  #: task -> parquet of its training rows
    heldout: dict[str, str]
    threads: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training: ``rate`` in tokens (sft) or pairs (pm) per second, and the final model's held-out loss.

    Sampling by length changes which pairs fall into the timed steps, so the rate of pairs is taken from tokens: tokens
    per second divided by the mean number of tokens in a pair.
    """

    rate: float
    rate_per_cpu_s: float
    heldout_loss: float


# --------------------------------------------------------------------------------------------------- the workload
def make_workload(data: Path, directory: Path, threads: int) -> Workload:
    """A tokenizer trained on the data, a random model of about 0.9M parameters, tokenized rows."""
    pairs = [json.loads(line) for line in data.read_text().splitlines()]
    tokenizer = make_model([pair["chosen"] for pair in pairs], directory / "model")
    examples = [example for pair in pairs if (example := encode(tokenizer, pair)) is not None]
    return Workload(
        model=str(directory / "model"),
        rows={task: write(examples[: steps * BATCH_SIZE], task, directory) for task, steps in NUM_STEPS.items()},
        heldout={task: write(examples[-128:], f"{task}_heldout", directory) for task in ("sft", "pm")},
        threads=threads,
    )


def make_model(texts: list[str], path: Path) -> Any:
    """Save a random Llama and its byte-level BPE; returns the tokenizer."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    special = ["<|eos|>", "<|pad|>"]
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|eos|>", pad_token="<|pad|>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return tokenizer


def encode(tokenizer: Any, pair: dict[str, str]) -> dict[str, Any] | None:
    """One pair's token ids; None if it is too long or its answers are the same."""
    prompt = pair["chosen"][: pair["chosen"].rindex("\n\nAssistant:") + len("\n\nAssistant:")]
    chosen, rejected = ([*tokenizer.encode(pair[side]), tokenizer.eos_token_id] for side in ("chosen", "rejected"))
    if max(len(chosen), len(rejected)) > MAX_LENGTH or chosen == rejected:
        return None
    prompt_length = common_prefix(tokenizer.encode(prompt), chosen)
    return {"chosen": chosen, "rejected": rejected, "prompt_length": prompt_length}


def common_prefix(first: list[int], second: list[int]) -> int:
    """Length of the common prefix: a token that spans the end of the prompt belongs to the answer."""
    same = (a == b for a, b in zip(first, second, strict=False))
    return next((i for i, equal in enumerate(same) if not equal), min(len(first), len(second)))


def write(examples: list[dict[str, Any]], name: str, directory: Path) -> str:
    """Write the examples as parquet rows for our trainers; returns the path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name.startswith("sft"):
        rows = [{"input_ids": e["chosen"], "prompt_length": e["prompt_length"]} for e in examples]
    else:
        rows = [
            {"input_ids_1": e["chosen"], "input_ids_2": e["rejected"], "axis": "red_team", "prob": 1.0, "weight": 1.0}
            for e in examples
        ]
    path = directory / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist([{"id": str(i), **row} for i, row in enumerate(rows)]), path)
    return str(path)


def count_tokens(rows: list[dict[str, Any]]) -> int:
    return sum(len(row[name]) for row in rows for name in row if name.startswith("input_ids"))


class Clock:
    """Records when optimizer steps end, with the number of tokens learned by then."""

    def __init__(self) -> None:
        self._ticks: list[tuple[float, float, int]] = []

    def tick(self, num_tokens: int) -> None:
        """An optimizer step has ended; ``num_tokens`` is the total so far, without padding."""
        self._ticks.append((time.perf_counter(), time.process_time(), num_tokens))

    def rates(self) -> tuple[float, float]:
        """Tokens per second, and per second of CPU time, from the end of the first step to the end of the last.

        The latter varies less when something else runs on the machine.
        """
        (wall, cpu, tokens), (last_wall, last_cpu, last_tokens) = self._ticks[0], self._ticks[-1]
        return (last_tokens - tokens) / (last_wall - wall), (last_tokens - tokens) / (last_cpu - cpu)


def heldout_loss(task: str, model: Any, rows: list[dict[str, Any]]) -> float:
    """The held-out loss, measured alike for both sides: stock forward passes, one row at a time."""
    import torch
    from torch.nn import functional

    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            if task == "sft":
                ids = torch.tensor([row["input_ids"]])
                logits = model(input_ids=ids).logits[0, row["prompt_length"] - 1 : -1]
                total += functional.cross_entropy(logits, ids[0, row["prompt_length"] :], reduction="sum").item()
                count += logits.shape[0]
            else:
                scores = [model(input_ids=torch.tensor([row[f"input_ids_{n}"]])).logits.item() for n in (1, 2)]
                total += functional.softplus(torch.tensor(scores[1] - scores[0])).item()
                count += 1
    return total / count


# --------------------------------------------------------------------------------------------------- the two sides
def train_ours(task: str, workload: Workload, output: str, micro_batch_tokens: int) -> Trial:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from rlaif.config.schema import Optimization, PreferenceModel
    from rlaif.config.trainer import Trainer
    from rlaif.jobs import PreferenceJob, Rank, SFTJob
    from rlaif.training.batches import read_rows
    from rlaif.training.preference import run_preference
    from rlaif.training.sft import run_sft

    rows = read_rows(workload.rows[task])
    clock = Clock()
    totals = itertools.accumulate(
        count_tokens(rows[first : first + BATCH_SIZE]) for first in range(0, len(rows), BATCH_SIZE)
    )

    def report(metrics: Any) -> None:
        clock.tick(next(totals))

    batches = [rows[first : first + BATCH_SIZE] for first in range(0, len(rows), BATCH_SIZE)]
    optimization = Optimization(batch_size=BATCH_SIZE, learning_rate=LEARNING_RATES[task], warmup_steps=0)
    common: dict[str, Any] = {
        "base_model": workload.model,
        "output": output,
        "trainer": Trainer(threads=workload.threads, micro_batch_tokens=micro_batch_tokens),
        "seed": 0,
    }
    if task == "sft":
        job = SFTJob(**common, dataset="", max_length=MAX_LENGTH, optimization=optimization)
        run_sft(job, Rank(), batches, report)
        model = AutoModelForCausalLM.from_pretrained(output)
    else:
        settings = PreferenceModel(fit=optimization, max_length=MAX_LENGTH)
        unfitted = f"{output}_unfitted"
        pm_job = PreferenceJob(**common, pretraining=None, fit="", heldout=None, unfitted=unfitted, settings=settings)
        run_preference(pm_job, Rank(), None, batches, None, report)
        model = AutoModelForSequenceClassification.from_pretrained(output)
    return _trial(task, clock, model, workload)


def _trial(task: str, clock: Clock, model: Any, workload: Workload) -> Trial:
    from rlaif.training.batches import read_rows

    rows = read_rows(workload.rows[task])
    unit = 1.0 if task == "sft" else count_tokens(rows) / len(rows)
    rate, rate_per_cpu_s = clock.rates()
    return Trial(
        rate=rate / unit,
        rate_per_cpu_s=rate_per_cpu_s / unit,
        heldout_loss=heldout_loss(task, model, read_rows(workload.heldout[task])),
    )


def train_trl(task: str, workload: Workload, output: str, per_device: int, sampling: str) -> Trial:
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(workload.threads)
    torch.manual_seed(0)
    clock = Clock()

    class Ticks(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.tick(int(trainer._total_train_tokens))  # TRL's own count, without padding

    new_trainer = {"sft": _trl_sft_trainer, "pm": _trl_pm_trainer}[task]
    trainer = new_trainer(workload, _trl_settings(task, output, per_device, sampling), Ticks())
    trainer.train()
    return _trial(task, clock, trainer.model, workload)


def _trl_settings(task: str, output: str, per_device: int, sampling: str) -> dict[str, Any]:
    return {
        "output_dir": output,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": BATCH_SIZE // per_device,
        "train_sampling_strategy": sampling,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATES[task],
        "lr_scheduler_type": "constant",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_length": MAX_LENGTH,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }


def _trl_sft_trainer(workload: Workload, settings: dict[str, Any], callback: Any) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from rlaif.training.batches import read_rows

    tokenizer = AutoTokenizer.from_pretrained(workload.model)
    model = AutoModelForCausalLM.from_pretrained(workload.model, dtype=torch.float32)
    data = Dataset.from_list(
        [
            {
                "input_ids": row["input_ids"],
                "completion_mask": [int(i >= row["prompt_length"]) for i in range(len(row["input_ids"]))],
            }
            for row in read_rows(workload.rows["sft"])
        ]
    )
    config = SFTConfig(**settings, completion_only_loss=True)
    return SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, callbacks=[callback])


def _trl_pm_trainer(workload: Workload, settings: dict[str, Any], callback: Any) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from rlaif.training.batches import read_rows

    tokenizer = AutoTokenizer.from_pretrained(workload.model)
    model = AutoModelForSequenceClassification.from_pretrained(workload.model, num_labels=1, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)  # the same new head as ours
    head = model.score.weight
    with torch.no_grad():
        head.copy_(torch.randn(head.shape, generator=generator) / (head.shape[1] + 1))
    data = Dataset.from_list(
        [
            {
                "chosen_ids": row["input_ids_1"],
                "rejected_ids": row["input_ids_2"],
                "length": max(len(row["input_ids_1"]), len(row["input_ids_2"])),
            }
            for row in read_rows(workload.rows["pm"])
        ]
    )
    config = RewardConfig(**settings, remove_unused_columns=False)  # the sampler needs the lengths
    return RewardTrainer(model, config, train_dataset=data, processing_class=tokenizer, callbacks=[callback])


# ---------------------------------------------------------------------------------------------------- the contest
def serve(side: str, workload: Workload, directory: str, pipe: Any) -> None:
    """One side's process: trains on request, until it is sent None."""
    sys.stdout = sys.stderr
    train = {"ours": train_ours, "trl": train_trl}[side]
    while (request := pipe.recv()) is not None:
        task, settings = request
        pipe.send(train(task, workload, f"{directory}/{side}_{task}", **settings))


class Side:
    """The parent's end of one side's process."""

    def __init__(self, name: str, workload: Workload, directory: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(name, workload, directory, theirs))
        self._process.start()

    def train(self, task: str, settings: dict[str, Any], timeout_s: float = 1200) -> Trial:
        self._pipe.send((task, settings))
        if not self._pipe.poll(timeout_s):
            raise TimeoutError(f"no result for {task} with {settings} within {timeout_s:.0f} s")
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(30)


CANDIDATES = {
    "ours": [{"micro_batch_tokens": tokens} for tokens in (512, 1024, 2048)],
    "trl": [
        {"per_device": 8, "sampling": "sequential"},
        *({"per_device": size, "sampling": "group_by_length"} for size in (4, 8, 16)),
    ],
}


def contest(sides: dict[str, Side], task: str, rounds: int) -> dict[str, Any]:
    """Choose each side's fastest settings, then alternate; returns medians and all trials."""
    fastest, first_round = {}, {}
    for name, side in sides.items():
        side.train(task, CANDIDATES[name][0])  # a first training, to fill caches and do lazy imports
        first_round[name] = [(side.train(task, settings), settings) for settings in CANDIDATES[name]]
        fastest[name] = max(first_round[name], key=lambda pair: pair[0].rate)[1]
    trials: dict[str, list[Trial]] = {name: [] for name in sides}
    for index in range(rounds):
        for name in list(sides) if index % 2 == 0 else list(sides)[::-1]:
            trials[name].append(sides[name].train(task, fastest[name]))
    return {
        name: {
            "settings": fastest[name],
            "rate": statistics.median(trial.rate for trial in trials[name]),
            "heldout_loss": trials[name][-1].heldout_loss,
            "rate_per_cpu_s": statistics.median(trial.rate_per_cpu_s for trial in trials[name]),
            "trials": [asdict(trial) for trial in trials[name]],
            "tried": [{**settings, "rate": trial.rate} for trial, settings in first_round[name]],
        }
        for name in sides
    }


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ("torch", "transformers", "deepspeed", "trl", "accelerate")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "load_average": os.getloadavg(),
    }


def result(contests: dict[str, dict[str, Any]], threads: int) -> dict[str, Any]:
    """The figures by name, then everything behind them. Final losses are on the held-out rows."""
    sft, pm = contests["sft"], contests["pm"]
    return {
        "sft_tokens_per_s": sft["ours"]["rate"],
        "pm_pairs_per_s": pm["ours"]["rate"],
        "trl.sft_tokens_per_s": sft["trl"]["rate"],
        "trl.pm_pairs_per_s": pm["trl"]["rate"],
        **{
            f"{prefix}{task}_{figure}": contests[task][side][key]
            for key, figure in (("heldout_loss", "final_loss"), ("rate_per_cpu_s", "rate_per_cpu_s"))
            for task in contests
            for side, prefix in (("ours", ""), ("trl", "trl."))
        },
        "threads": threads,
        "machine": machine(),
        "details": contests,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hh_harmless_pairs.jsonl"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        workload = make_workload(arguments.data, Path(directory), arguments.threads)
        sides = {name: Side(name, workload, directory) for name in CANDIDATES}
        try:
            contests = {task: contest(sides, task, arguments.rounds) for task in ("sft", "pm")}
        finally:
            for side in sides.values():
                side.close()
        stages = reinforcement.contest(
            arguments.data, workload.model, Path(directory), arguments.threads, arguments.rounds
        )
    figures = result(contests, arguments.threads) | stages
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        if isinstance(value, float):
            print(f"{name:28s} {value:12.3f}")


if __name__ == "__main__":
    main()
