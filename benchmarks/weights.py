"""How long does a weight sync take, compared with copying the same bytes? Goal: at most 3 times as long at 1 GB.

    python -m benchmarks.weights --json FILE

Weights take the path of a real run: an actor that plays the learner's rank 0 holds new weights and a probe of them, the
driver puts them into the object store, and ``EnginePool.update_weights`` makes every vLLM engine read them from there,
load them, reset its prefix cache and prove by the probe that it serves them. All engines are actors on this machine and
share its cores; weights are float32 and differ in every sync.

``seconds``: from the moment when the weights are ready until the last engine has proved that it serves them; the median
of several syncs, not counting the first. ``copy_bound_s``: one thread copies the same bytes between two arrays that are
already in memory, once for each engine in sequence, right after the engines are closed; the median of the same
number of repeats. ``peak_pss_gib``: proportional set size of the whole process tree, sampled after the syncs.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

from actors.cluster.start import open_cluster
from actors.cluster.weights import SharedWeights
from actors.pool.pool import EnginePool
from benchmarks.demo import tree_pss
from benchmarks.machine import publish
from rlaif.config.schema import Config, PoolSettings

SHAPES = ((256, 12), (512, 25), (1024, 20))  #: hidden size and layers: 39 MB, 322 MB, 1.03 GB
ENGINES = (1, 2, 4)
REPEATS = 5
MAKING_TIMEOUT_S = 300.0
SHRINKING = 0.9  #: factor from one version to the next, for all weights; changes every probe by more than the tolerance
PROBE = tuple(tuple(range(first, first + 8)) for first in (40, 80, 120, 160))  #: as many tokens as in a run


def make_model(hidden: int, layers: int, path: Path) -> None:
    """Save a random Llama with 12.25 * hidden^2 parameters per layer, and a byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlaif.engines.scripted import byte_tokenizer

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=11 * hidden // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)


def run_in_process(function: Any, *arguments: Any) -> None:
    """Run ``function`` in a process of its own, so that its memory is freed when it ends."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join(MAKING_TIMEOUT_S)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"{function.__name__}{arguments} ended with {process.exitcode}")


class Learner:
    """Plays the learner's rank 0."""

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(model)
        self._version = 0
        self._weights: Any = None

    def learn(self) -> int:
        """Make the next version; returns its size in bytes, with the tied head counted once."""
        import torch

        from rlaif.interfaces import Weights
        from tests.tiny_models import probe_of

        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.mul_(SHRINKING)
        self._version += 1
        tensors = {name: tensor.detach().numpy() for name, tensor in self._model.state_dict().items()}
        self._weights = Weights(version=self._version, tensors=tensors, probe=probe_of(self._model, PROBE))
        return sum(parameter.nbytes for parameter in self._model.parameters())

    def take(self) -> tuple[int, Any]:
        return self._version, self._weights


async def sync(learner: Any, pool: EnginePool) -> float:
    """Seconds from when the weights are ready until all engines serve them."""
    await learner.learn.remote()
    began = time.perf_counter()
    version, weights = learner.take.options(num_returns=2).remote()
    await pool.update_weights(SharedWeights(version=await version, ref=weights))
    return time.perf_counter() - began


def copy_s(num_bytes: int, times: int) -> float:
    """Seconds to copy ``num_bytes`` bytes ``times`` times in one thread, between arrays that are already in memory."""
    source, target = np.ones(num_bytes // 4, np.float32), np.zeros(num_bytes // 4, np.float32)
    target.fill(1)
    began = time.perf_counter()
    for _ in range(times):
        np.copyto(target, source)
    return time.perf_counter() - began


async def measure(model: Path, engines: int) -> dict[str, Any]:
    settings = PoolSettings(
        min=engines,
        max=engines,
        cpus=0.1,
        threads=max(1, (os.cpu_count() or 1) // engines),
        max_length=256,
        kv_cache_gib=0.05,
        max_in_flight=16,
    )
    learner = ray.remote(Learner).options(num_cpus=0).remote(str(model))
    num_bytes = await learner.learn.remote()
    pool = EnginePool("generator", str(model), settings)
    try:
        await pool.start()
        await sync(learner, pool)
        seconds = [await sync(learner, pool) for _ in range(REPEATS)]
        peak = tree_pss(psutil.Process())
    finally:
        await pool.close()
        ray.kill(learner)
    bound = statistics.median(copy_s(num_bytes, engines) for _ in range(REPEATS))
    return {
        "model_bytes": num_bytes,
        "engines": engines,
        "seconds": round(statistics.median(seconds), 4),
        "copy_bound_s": round(bound, 4),
        "times_bound": round(statistics.median(seconds) / bound, 2),
        "fastest_s": round(min(seconds), 4),
        "peak_pss_gib": round(peak / 2**30, 2),
    }


async def measure_all(directory: Path, shapes: Any, engines: Any) -> list[dict[str, Any]]:
    syncs = []
    for hidden, layers in shapes:
        model = directory / f"{hidden}x{layers}"
        run_in_process(make_model, hidden, layers, model)
        for number in engines:
            syncs.append(await measure(model, number))
            print(syncs[-1], flush=True)
    return syncs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=range(len(SHAPES)), help="indices into the three sizes")
    parser.add_argument("--engines", type=int, nargs="*", default=ENGINES)
    arguments = parser.parse_args()
    shapes = [SHAPES[index] for index in arguments.sizes]
    config = Config.model_validate({"run_dir": "weights", "resources": {"cpus": 4, "object_store_gib": 3.0}})
    with tempfile.TemporaryDirectory() as directory, open_cluster(config):
        syncs = asyncio.run(measure_all(Path(directory), shapes, arguments.engines))
    publish({"syncs": syncs}, arguments.json)


if __name__ == "__main__":
    main()
