"""How long does a checkpoint stop learning? Goal: a tenth of the time that writing it takes.

    python -m benchmarks.checkpoints --json FILE [--layers N] [--steps N] [--repeats N]

One rank trains a Llama with random weights on the CPU. A checkpoint is written at once, and then in the background,
while steps go on. ``stopped_s`` is the time by which learning falls behind: all of the writing; or the copy to host
memory, and that by which the steps take longer than others do while the files are written. Medians.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.machine import publish
from rlaif.config.trainer import Trainer
from rlaif.jobs import Rank
from rlaif.training.deepspeed import DeepSpeedModel, start_rank
from rlaif.training.models import PolicyModel

TOKENS = 64


def new_model(num_layers: int) -> DeepSpeedModel:
    trainer, rank = Trainer(zero_stage=1), Rank()
    start_rank(rank, trainer)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=num_layers,
        num_attention_heads=16,
        vocab_size=8192,
        tie_word_embeddings=True,
    )
    return DeepSpeedModel(PolicyModel(LlamaForCausalLM(config)), trainer, rank, learning_rate=1e-4)


def step_of(model: DeepSpeedModel) -> Callable[[], float]:
    ids, positions = torch.arange(TOKENS).unsqueeze(0), torch.arange(TOKENS - 1)

    def step() -> float:
        began = time.perf_counter()
        model.step([[0]], lambda rows: (-model(ids, positions, ids[0, 1:])[0].sum(), {}))
        return time.perf_counter() - began

    return step


def at_once(model: DeepSpeedModel, path: Path) -> float:
    began = time.perf_counter()
    model.begin_checkpoint(path, in_background=False).finish()
    return time.perf_counter() - began


def in_background(model: DeepSpeedModel, path: Path, step: Callable[[], float], step_s: float) -> dict[str, float]:
    began = time.perf_counter()
    writer = model.begin_checkpoint(path, in_background=True)
    copied_s = time.perf_counter() - began
    steps = []
    while not writer.is_written():
        steps.append(step())
    writer.finish()
    stopped_s = copied_s + sum(steps) - len(steps) * step_s
    return {"stopped_s": stopped_s, "copied_s": copied_s, "steps_meanwhile": len(steps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    model = new_model(arguments.layers)
    step = step_of(model)
    step_s = median(step() for _ in range(arguments.steps))
    written, meanwhile = [], []
    with tempfile.TemporaryDirectory() as directory:
        for repeat in range(arguments.repeats):
            written.append(at_once(model, Path(directory, f"at_once_{repeat}")))
            meanwhile.append(in_background(model, Path(directory, f"in_background_{repeat}"), step, step_s))
    waiting = median(written)
    background = {key: round(median(one[key] for one in meanwhile), 3) for key in meanwhile[0]}
    publish(
        {
            "parameters": sum(parameter.numel() for parameter in model.module.parameters()),
            "step_s": round(step_s, 3),
            "at_once": {"stopped_s": round(waiting, 3)},
            "in_background": background,
            "stopped_ratio": round(background["stopped_s"] / waiting, 3),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
