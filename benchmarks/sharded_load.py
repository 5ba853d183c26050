"""How much memory do two ranks need to load a model of 2 GB under ZeRO-3? Goal: below 0.7 of its size each.

    python -m benchmarks.sharded_load --json FILE [--layers N]

Each rank's resident memory at its peak, less what it was before: loading its part alone, and loading it whole.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import publish

NUM_RANKS = 2


def growth(path: str, *, sharded: bool) -> list[int]:
    """Bytes by which each rank's resident memory grows at its peak, while it loads the model at ``path``."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as store:
        ranks = [
            context.Process(target=_load, args=(index, path, store, sharded, results)) for index in range(NUM_RANKS)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
    if any(rank.exitcode for rank in ranks):
        raise RuntimeError(f"ranks ended with {[rank.exitcode for rank in ranks]}")
    return [results.get() for _ in ranks]


def _load(index: int, path: str, store: str, sharded: bool, results: Any) -> None:
    import torch.distributed

    from rlaif.config.trainer import Trainer
    from rlaif.jobs import Rank
    from rlaif.training.deepspeed import start_rank
    from rlaif.training.deepspeed_config import partition_config
    from rlaif.training.models import load_policy
    from rlaif.training.process_group import leave_process_group  # before there is a group to leave

    files = torch.distributed.FileStore(f"{store}/store", NUM_RANKS)
    torch.distributed.init_process_group("gloo", store=files, rank=index, world_size=NUM_RANKS)
    os.environ["LOCAL_RANK"] = str(index)
    trainer = Trainer(zero_stage=3)
    start_rank(Rank(index=index, world_size=NUM_RANKS), trainer)
    importlib.import_module("transformers.models.llama.modeling_llama")
    before = psutil.Process().memory_info().rss
    policy = load_policy(path, "float32", partition_config(trainer) if sharded else None)
    if not sharded:  # its pages are the file's until somebody writes to them or, as here, reads them
        sum(float(parameter.detach().sum()) for parameter in policy.parameters())
    results.put(_peak() - before)
    del policy
    leave_process_group()


def _peak() -> int:
    """The largest resident memory of this process, in bytes; ``ru_maxrss`` would count its parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _make_model(path: Path, num_layers: int) -> int:
    """A Llama with random weights, float32; its size in bytes."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=num_layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=16384,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path, max_shard_size="500MB")
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where the result is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        size = _make_model(Path(directory) / "model", arguments.layers)
        figures: dict[str, Any] = {"model_bytes": size, "ranks": NUM_RANKS}
        for name, sharded in (("in_parts", True), ("whole", False)):
            start = time.monotonic()
            grown = growth(f"{directory}/model", sharded=sharded)
            figures[name] = {
                "peak_growth_bytes": grown,
                "share_of_model": [round(each / size, 3) for each in grown],
                "seconds": round(time.monotonic() - start, 1),
            }
    publish(figures, arguments.json)


if __name__ == "__main__":
    main()
