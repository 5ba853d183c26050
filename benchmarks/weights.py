"""How long does a weight sync take, compared with copying the same bytes? Goal: at most 3 times as long at 1 GB.

    python -m benchmarks.weights --json FILE

Weights take the path of a real run: an actor that plays the learner's rank 0 has new weights and a probe of them, the
driver takes them into the object store in buckets, and ``EnginePool.update_weights`` makes every vLLM engine read them
from there, load them, reset its prefix cache, and prove by checksums that it serves them and by the probe that it
computes the same with them. All engines are actors on this machine and share its cores; weights differ in every sync.

``seconds``: from the moment when the learner has computed the probe until the last engine has proved that it serves
them; the median of several syncs, not counting the first. ``stored_bytes``: what a version takes in the object store.
``copy_bound_s``: one thread copies the same bytes between two arrays that are already in memory, once for each engine
in sequence, right after the engines are closed; the median of the same number of repeats. ``peak_pss_gib``:
proportional set size of the whole process tree, sampled after the syncs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
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
from ray._private.internal_api import node_stats

from actors.cluster.start import open_cluster
from actors.cluster.weights import SharedWeights
from actors.pool.pool import EnginePool
from benchmarks.demo import tree_pss
from benchmarks.machine import publish
from rlaif.config.schema import Config, PoolSettings

SHAPES = ((256, 12), (512, 25), (1024, 20), (1024, 40))  #: hidden size and layers: 1.03 GB are the third in float32,
#: and the fourth in bfloat16
ENGINES = (1, 2, 4)
REPEATS = 5
MAKING_TIMEOUT_S = 300.0
SHRINKING = 0.9  #: factor from one version to the next, for all weights; changes every probe by more than the tolerance
PROBE = tuple(tuple(range(first, first + 33)) for first in range(0, 200, 25))  #: 256 values, as in a run


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

    def __init__(self, model: str, dtype: str) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        self._version = 0
        self._buckets: Any = None

    def learn(self) -> int:
        """Make the next version; returns its size in bytes, with the tied head counted once."""
        import torch

        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.mul_(SHRINKING)
        self._version += 1
        return sum(parameter.nbytes for parameter in self._model.parameters())

    def weights(self) -> Any:
        """The header of the current version, whose buckets are then gathered one at a time."""
        from rlaif.jobs import Rank
        from rlaif.training.weight_buckets import gather_weights
        from tests.tiny_models import probe_of

        weights = gather_weights(self._model, "", Rank(), self._version, probe_of(self._model, PROBE))
        self._buckets = iter(weights.buckets)
        return weights.header

    def bucket(self) -> Any:
        return next(self._buckets)

    @property
    def module(self) -> Any:
        return self._model

    def gathered(self, tensor: Any) -> Any:
        return contextlib.nullcontext()


async def sync(learner: Any, pool: EnginePool) -> float:
    """Seconds from when the weights are ready until all engines serve them."""
    await learner.learn.remote()
    header = await learner.weights.remote()
    began = time.perf_counter()
    buckets = []
    for _ in range(header.num_buckets):  # one is gathered when the last one is in the store
        buckets.append(learner.bucket.remote())
        await asyncio.to_thread(ray.wait, [buckets[-1]], fetch_local=False)
    await pool.update_weights(SharedWeights(header=header, buckets=buckets))
    return time.perf_counter() - began


async def stored_bytes(learner: Any) -> int:
    """Growth of the object store by one version."""
    await learner.learn.remote()
    header = await learner.weights.remote()
    before = used_bytes()
    buckets = [learner.bucket.remote() for _ in range(header.num_buckets)]
    await asyncio.to_thread(ray.wait, buckets, num_returns=len(buckets))
    return used_bytes() - before


def used_bytes() -> int:
    """Of this machine's object store, when what nobody needs any more is gone."""
    gc.collect()
    time.sleep(2)
    [node] = ray.nodes()
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
    return int(stats.store_stats.object_store_bytes_used)


def copy_s(num_bytes: int, times: int) -> float:
    """Seconds to copy ``num_bytes`` bytes ``times`` times in one thread, between arrays that are already in memory."""
    source, target = np.ones(num_bytes // 4, np.float32), np.zeros(num_bytes // 4, np.float32)
    target.fill(1)
    began = time.perf_counter()
    for _ in range(times):
        np.copyto(target, source)
    return time.perf_counter() - began


async def measure(model: Path, engines: int, dtype: str) -> dict[str, Any]:
    settings = PoolSettings(
        min=engines,
        max=engines,
        cpus=0.1,
        threads=max(1, (os.cpu_count() or 1) // engines),
        max_length=256,
        kv_cache_gib=0.05,
        max_in_flight=16,
        dtype=dtype,
    )
    learner = ray.remote(Learner).options(num_cpus=0).remote(str(model), dtype)
    num_bytes = await learner.learn.remote()
    pool = EnginePool("generator", str(model), settings)
    try:
        await pool.start()
        await sync(learner, pool)
        seconds = [await sync(learner, pool) for _ in range(REPEATS)]
        peak = tree_pss(psutil.Process())
        stored = await stored_bytes(learner)
    finally:
        await pool.close()
        ray.kill(learner)
    bound = statistics.median(copy_s(num_bytes, engines) for _ in range(REPEATS))
    return {
        "dtype": dtype,
        "model_bytes": num_bytes,
        "stored_bytes": stored,
        "engines": engines,
        "seconds": round(statistics.median(seconds), 4),
        "copy_bound_s": round(bound, 4),
        "times_bound": round(statistics.median(seconds) / bound, 2),
        "fastest_s": round(min(seconds), 4),
        "peak_pss_gib": round(peak / 2**30, 2),
    }


async def measure_all(directory: Path, shapes: Any, engines: Any, dtypes: Any) -> list[dict[str, Any]]:
    syncs = []
    for hidden, layers in shapes:
        model = directory / f"{hidden}x{layers}"
        run_in_process(make_model, hidden, layers, model)
        for dtype, number in itertools.product(dtypes, engines):
            syncs.append(await measure(model, number, dtype))
            print(syncs[-1], flush=True)
    return syncs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=range(len(SHAPES)), help="indices into the sizes")
    parser.add_argument("--engines", type=int, nargs="*", default=ENGINES)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    shapes = [SHAPES[index] for index in arguments.sizes]
    config = Config.model_validate({"run_dir": "weights", "resources": {"cpus": 4, "object_store_gib": 3.0}})
    with tempfile.TemporaryDirectory() as directory, open_cluster(config):
        syncs = asyncio.run(measure_all(Path(directory), shapes, arguments.engines, arguments.dtypes))
    publish({"syncs": syncs}, arguments.json)


if __name__ == "__main__":
    main()
