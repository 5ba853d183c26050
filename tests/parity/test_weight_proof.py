"""vLLM proves that it serves new weights: equal ones always, others never, whatever it fuses, cuts, repeats or ties."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.weight_proof import measure, random_model
from rlaif.config.schema import PoolSettings
from rlaif.engines.models import read_model
from rlaif.engines.vllm import VLLMBackend
from rlaif.errors import WeightSyncError
from tests.tiny_models import MAX_LENGTH, saved, tiny_lm, weights_from

REPEATS = 5  #: the benchmark has 100


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equal_weights_are_accepted_and_the_step_before_is_refused(dtype, ranks, tmp_path):
    found = measure(random_model(tmp_path), dtype, ranks, REPEATS)
    assert (found["accepted"], found["refused"]) == (REPEATS, REPEATS)
    assert found["difference"]["largest"] < found["limit"] / 2
    assert found["other_rotary_base"] > 2 * found["limit"]  # the bits are right, what is computed with them is not


def left_out(module, name: str) -> None:
    """The loader passes over a tensor."""
    load = module.load_weights
    module.load_weights = lambda weights: load([(sent, tensor) for sent, tensor in weights if sent != name])


def untied(module) -> None:
    """The output head is a copy, and the loader takes it for tied."""
    module.lm_head = copy.deepcopy(module.lm_head)
    left_out(module, "lm_head.weight")


def rescaled(module) -> None:
    """Something else is served than was loaded, as by a kernel that keeps its own copy."""
    load = module.load_weights

    def load_weights(weights):
        load(weights)
        with torch.no_grad():
            module.model.layers[1].mlp.down_proj.weight[0, 0] *= 1.01

    module.load_weights = load_weights


def moved(module) -> None:
    load = module.load_weights

    def load_weights(weights):
        load(weights)
        norm = module.model.norm
        norm.weight = torch.nn.Parameter(norm.weight.clone() + 1, requires_grad=False)

    module.load_weights = load_weights


FAULTS = {
    r"model\.norm\.weight were not wholly loaded": lambda module: left_out(module, "model.norm.weight"),
    r"layers\.1\.self_attn\.qkv_proj\.weight were not wholly loaded": lambda module: left_out(
        module, "model.layers.1.self_attn.v_proj.weight"
    ),
    r"lm_head\.weight were not wholly loaded": untied,
    r"layers\.1\.mlp\.down_proj\.weight have other bits": rescaled,
    r"model\.norm\.weight were not wholly loaded\b": moved,
}


@pytest.mark.parametrize("said", FAULTS)
def test_faults_inside_an_engine_are_named(said, tmp_path):
    path = saved(tiny_lm(1, tied=True), tmp_path)
    model = read_model(path, field="model", max_length=MAX_LENGTH, pooling=False)
    backend = VLLMBackend(model, PoolSettings(max_length=MAX_LENGTH, kv_cache_gib=0.05), "generator")
    weights = weights_from(tiny_lm(2, tied=True), 1, [[1, 2]], bucket_bytes=2**30)
    [bucket] = weights.buckets
    try:
        FAULTS[said](backend._llm.collective_rpc("get_model")[0])
        backend.load(bucket.tensors)
        with pytest.raises(WeightSyncError, match=said):
            backend.finish_loading(bucket.checksums)
    finally:
        backend.close()
