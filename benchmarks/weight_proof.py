"""Does the proof of new weights accept equal ones, and refuse those of the step before?

    python -m benchmarks.weight_proof --json FILE [--model PATH] [--repeats 100]

A learner's weights move by Adam's step at a learning rate of 1e-6, over float32 master weights, and are sent in its
number format. vLLM engines, of one rank and of two tensor-parallel ones, load each version and prove it:
``accepted``. Then they load the version before, and are asked to prove the new one: ``refused``. ``changed``: the share
of the numbers that a step changes, on average.

``difference``: mean absolute difference of log-probabilities between engine and learner (transformers) for 256 tokens
that the learner samples, over all equal versions (mean and largest), beside its limit; ``single``: the largest
difference of any one token. ``step_before`` and ``other_rotary_base``: the same between two versions, and with a rotary
base of 2,000 in place of 10,000. Without ``--model``, the model is random, with logits that reach 20.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.machine import publish
from rlaif.config.schema import PoolSettings
from rlaif.engines.models import read_model
from rlaif.engines.proof import MEAN_DIFFERENCE, mean_difference
from rlaif.engines.requests import logprobs_request
from rlaif.engines.scripted import byte_tokenizer
from rlaif.engines.vllm import VLLMBackend
from rlaif.errors import WeightSyncError
from rlaif.interfaces import Weights
from tests.tiny_models import weights_from

LEARNING_RATE, BETAS = 1e-6, (0.9, 0.999)
SEQUENCES, CONTEXT, SAMPLED = 8, 16, 32
REACH = 20.0  #: largest logit of the random model
OTHER_BASE = 0.2  #: times the model's own


def random_model(path: Path) -> str:
    """A Llama with a tied head, and one key and value head, which two ranks both have."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.06,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        largest = model(torch.arange(200)[None]).logits.abs().max()
        model.model.norm.weight.mul_(REACH / largest)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def steps(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[float]:
    """Move ``model`` by Adam's steps over float32 master weights; yields the share of its numbers that changed."""
    parameters = list(model.parameters())
    masters = [parameter.detach().float() for parameter in parameters]
    masters = [master + master.abs() * (torch.rand_like(master) - 0.5) * 2**-8 for master in masters]
    adam = torch.optim.AdamW(masters, lr=LEARNING_RATE, betas=BETAS)
    while True:
        for master in masters:
            master.grad = torch.randn_like(master)
        adam.step()
        changed = 0
        for parameter, master in zip(parameters, masters, strict=True):
            rounded = master.to(dtype, copy=True)
            changed += int((rounded != parameter).sum())
            parameter.data = rounded
        yield changed / sum(map(torch.numel, parameters))


@torch.no_grad()
def sampled(model: PreTrainedModel) -> list[list[int]]:
    """Sequences whose last tokens ``model`` has sampled."""
    torch.manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size - 3, (SEQUENCES, CONTEXT))
    for _ in range(SAMPLED):
        probs = model(ids).logits[:, -1].float().softmax(-1)
        ids = torch.cat([ids, probs.multinomial(1)], 1)
    return ids.tolist()


def served(backend: VLLMBackend, model: Any, sequences: list[list[int]]) -> list[tuple[float, ...]]:
    """The engine's log-probabilities of the sampled tokens."""
    for key, ids in enumerate(sequences):
        backend.admit(key, logprobs_request(model, ids, SAMPLED))
    values: dict[int, Any] = {}
    while len(values) < len(sequences):
        values |= dict(backend.step())
    return [values[key] for key in range(len(sequences))]


def loads(backend: VLLMBackend, weights: Weights, proof_of: Weights) -> bool:
    """Whether an engine that has loaded ``weights`` proves that it serves ``proof_of``."""
    for bucket in weights.buckets:
        backend.load(bucket.tensors)
    try:
        backend.finish_loading({name: bits for bucket in proof_of.buckets for name, bits in bucket.checksums.items()})
    except WeightSyncError:
        return False
    return True


def measure(path: str, dtype: str, ranks: int, repeats: int) -> dict[str, Any]:
    settings = PoolSettings(
        max_length=256, kv_cache_gib=0.1, dtype=dtype, tensor_parallel=ranks, max_in_flight=16, start_timeout_s=200
    )
    model = read_model(path, field="model", max_length=256, pooling=False)
    backend = VLLMBackend(model, settings, "generator")
    learner = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
    sequences = sampled(learner)
    moves = steps(learner, getattr(torch, dtype))
    next(moves)
    before, differences, gaps, largest, changed, seconds = versions_of(learner, 0, sequences), [], [], 0.0, [], []
    accepted = refused = 0
    for version in range(1, repeats + 1):
        changed.append(next(moves))
        new = versions_of(learner, version, sequences)
        began = time.perf_counter()
        accepted += loads(backend, new, proof_of=new)
        seconds.append(time.perf_counter() - began)
        ours, theirs = served(backend, model, sequences), probed(new)
        differences.append(mean_difference(ours, theirs))
        largest = max(
            largest, *(abs(a - b) for row in zip(ours, theirs, strict=True) for a, b in zip(*row, strict=True))
        )
        gaps.append(mean_difference(probed(before), theirs))
        refused += not loads(backend, before, proof_of=new)
        before = new
    assert loads(backend, before, proof_of=before)
    learner.model.rotary_emb.inv_freq *= OTHER_BASE ** -(torch.arange(0, 1, 1 / len(learner.model.rotary_emb.inv_freq)))
    other = probed(versions_of(learner, 0, sequences))
    wrong = mean_difference(served(backend, model, sequences), other)
    backend.close()
    return {
        "dtype": dtype,
        "tensor_parallel": ranks,
        "repeats": repeats,
        "accepted": accepted,
        "refused": refused,
        "changed": round(statistics.fmean(changed), 5),
        "difference": {"mean": statistics.fmean(differences), "largest": max(differences), "single": largest},
        "limit": MEAN_DIFFERENCE[settings.dtype],
        "step_before": statistics.fmean(gaps),
        "other_rotary_base": wrong,
        "load_and_read_back_s": round(statistics.median(seconds), 4),
    }


def versions_of(learner: PreTrainedModel, version: int, sequences: list[list[int]]) -> Weights:
    return weights_from(learner, version, sequences, bucket_bytes=2**24)


def probed(weights: Weights) -> list[tuple[float, ...]]:
    return [values[-SAMPLED:] for values in weights.header.probe.values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=str)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = arguments.model or random_model(Path(directory))
        proofs = []
        for ranks in arguments.ranks:
            for dtype in arguments.dtypes:
                proofs.append(measure(path, dtype, ranks, arguments.repeats))
                print(proofs[-1], flush=True)
    publish({"model": Path(path).name if arguments.model else "random", "proofs": proofs}, arguments.json)


if __name__ == "__main__":
    main()
