"""What a rank holds, measured on real networks and ranks, is what the plan says, within a tenth."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, Qwen2Config, Qwen3Config

from rlaif.config.trainer import Trainer
from rlaif.sizes.architecture import of_config
from rlaif.sizes.training import (
    BUCKET,
    WIDTH,
    RankMemory,
    Trained,
    activation_bytes,
    checkpoint_bytes,
    head_bytes,
    layer_bytes,
    rank_memory,
    state_bytes,
)
from rlaif.training.deepspeed_config import effective_zero_stage
from rlaif.training.models import PolicyModel
from tests.public_models import LLAMA_8B, QWEN_1_5B, SMOLLM2_135M
from tests.unit.sizes.measured_rank import MODEL, Case, measured, resident, run_all, trainer_of

NUM_TOKENS = 64
SINGLE: list[Case] = [
    (0, "float32", False, "float32"),
    (1, "float32", False, "float32"),
    (2, "float32", False, "float32"),
    (2, "bfloat16", False, "float32"),
    (3, "bfloat16", False, "float32"),
    (2, "bfloat16", True, "float32"),
    (3, "bfloat16", True, "float32"),
    (1, "bfloat16", False, "bfloat16"),
    (2, "bfloat16", False, "bfloat16"),
    (3, "bfloat16", False, "bfloat16"),
]
PAIR: list[Case] = [
    (1, "bfloat16", False, "bfloat16"),
    (2, "bfloat16", False, "float32"),
    (3, "bfloat16", False, "float32"),
]
MEASURED = Trained(architecture=of_config(LlamaConfig(**MODEL)))
QWEN_3_8B = Qwen3Config(
    hidden_size=4096, intermediate_size=12288, num_attention_heads=32, num_key_value_heads=8, head_dim=128
)


def config_of(values: dict[str, Any]) -> Any:
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config}[values["model_type"]]
    return kind(**{key: value for key, value in values.items() if key not in ("model_type", "architectures")})


NETWORKS = {
    "Llama-3.1-8B": config_of(LLAMA_8B),
    "Qwen2.5-1.5B": config_of(QWEN_1_5B),
    "SmolLM2-135M": config_of(SMOLLM2_135M),
    "Qwen3-8B": QWEN_3_8B,
}


def saved_bytes(config: Any, num_layers: int, saves_memory: bool, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps of one row, parameters left out: real tensors, in this process's memory."""
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").train()
        network.base_model.layers = network.base_model.layers[:num_layers]
    network.to_empty(device="cpu")  # values do not matter
    if saves_memory:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    found = {parameter.untyped_storage()._cdata: 0 for parameter in network.parameters()}
    saved = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)  # so that no storage takes another's place
        found.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage().nbytes())
        return tensor

    ids, last = torch.zeros(1, NUM_TOKENS, dtype=torch.long), torch.tensor([NUM_TOKENS - 1])
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        PolicyModel(network)(ids, last, last)
    return sum(found.values())


def close(measured: float, planned: float) -> bool:
    return abs(measured - planned) < 0.1 * planned


# ---------------------------------------------------------------------------------------------------- activations
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("saves_memory", [True, False])
def test_activations_of_a_layer_are_as_planned(name: str, saves_memory: bool) -> None:
    config = copy.deepcopy(NETWORKS[name])
    config.vocab_size = 64  # layers are as wide as ever
    one, two = (saved_bytes(config, layers, saves_memory, torch.bfloat16) for layers in (1, 2))
    model = of_config(config)
    planned = 2 * model.hidden if saves_memory else layer_bytes(model, width=2)
    assert close((two - one) / NUM_TOKENS, planned)


def test_activations_of_the_8b_model_stay_below_12_kib_a_layer_and_token() -> None:
    model = of_config(NETWORKS["Llama-3.1-8B"])
    trainer = Trainer(dtype="bfloat16", checkpoint_activations=True)
    one_layer = layer_bytes(model, width=2)
    assert (activation_bytes(model, trainer, 1) - one_layer) / model.layers < 12 * 1024


@pytest.mark.parametrize("saves_memory", [True, False])
def test_a_whole_network_keeps_what_is_planned_in_real_memory(saves_memory: bool) -> None:
    config, trainer = NETWORKS["SmolLM2-135M"], Trainer(checkpoint_activations=saves_memory)
    model = of_config(config)
    planned = activation_bytes(model, trainer, NUM_TOKENS)
    if saves_memory:  # the one that is computed again is not there yet
        planned -= NUM_TOKENS * layer_bytes(model, width=4)
    last_norm = NUM_TOKENS * 8 * model.hidden
    assert close(saved_bytes(config, model.layers, saves_memory, torch.float32), planned + last_norm)


def test_the_head_works_on_a_chunk_at_a_time() -> None:
    model = Trained(architecture=of_config(NETWORKS["Llama-3.1-8B"]))
    few, many = (head_bytes(model, Trainer(), tokens) for tokens in (100, 100_000))
    assert few == 16 * 100 * model.architecture.vocabulary
    assert many == 16 * 2**26
    assert head_bytes(Trained(architecture=model.architecture, is_scorer=True), Trainer(), 100) == 0


# -------------------------------------------------------------------------------------------- states, checkpoints
@pytest.fixture(scope="module")
def single() -> dict[Case, dict[str, int]]:
    return measured(1, SINGLE)


@pytest.fixture(scope="module")
def pair() -> dict[Case, dict[str, int]]:
    return measured(2, PAIR)


def assert_as_planned(found: dict[str, int], trainer: Trainer) -> None:
    """The bucket, which is larger than this model, is left out: it would hide the rest. So is what a backward pass does
    not see: stage 0's bucket, which is made after it, and gathered weights, which are a limit."""
    state = state_bytes(MEASURED, trainer)
    bucket = WIDTH[trainer.dtype] * BUCKET if effective_zero_stage(trainer) else 0
    unseen = (bucket or state.device["buffers"]) + state.device["gathered"]
    assert close(found["backward"] - bucket, state.on_device + state.on_host - unseen)
    assert abs(found["checkpoint"] - checkpoint_bytes(MEASURED.parameters)) < 0.005 * found["checkpoint"]


@pytest.mark.parametrize("case", SINGLE)
def test_a_rank_holds_and_writes_what_is_planned(case: Case, single: dict[Case, dict[str, int]]) -> None:
    assert_as_planned(single[case], trainer_of(case))


@pytest.mark.parametrize("case", PAIR)
def test_each_of_two_ranks_holds_what_is_planned(case: Case, pair: dict[Case, dict[str, int]]) -> None:
    assert_as_planned(pair[case], trainer_of(case, ranks=2))


@pytest.mark.parametrize("case", [(0, "float32", False, "float32")])
def test_a_process_grows_by_what_is_planned(case: Case, tmp_path: Path) -> None:
    run_all(resident, [(case, str(tmp_path))])
    model = Trained(architecture=of_config(NETWORKS["SmolLM2-135M"]))
    trainer = trainer_of(case, checkpoint_activations=True)
    memory = rank_memory([model], [], trainer, tokens=64)
    planned = memory.on_host - memory.host["process"] - memory.host["files"]  # made here, and not read
    assert close(json.loads((tmp_path / "resident.json").read_text()), planned)


# ------------------------------------------------------------------------------------------------------ placement
EIGHT_BILLION = Trained(architecture=of_config(NETWORKS["Llama-3.1-8B"]))
VALUE = Trained(architecture=EIGHT_BILLION.architecture, is_scorer=True, is_value=True)
WHOLE = 2 * EIGHT_BILLION.parameters


def memory_of(tokens: int = 8192, **settings: Any) -> RankMemory:
    trainer = Trainer(gpus=1, ranks=8, dtype="bfloat16", zero_stage=2, **settings)
    return rank_memory([EIGHT_BILLION, VALUE], [EIGHT_BILLION], trainer, tokens)


def test_a_reference_is_where_it_is_placed() -> None:
    device, partitioned, host = (memory_of(reference_placement=p) for p in ("device", "partitioned", "host"))
    assert device.device["reference"] == WHOLE
    assert partitioned.device["reference"] == WHOLE / 8
    assert host.host["reference"] == WHOLE and "reference" not in device.host
    assert host.device.get("reference", 0) in (0, WHOLE), (
        "on the device while it is in use, at the fullest moment or not"
    )
    assert memory_of(reference_placement="host", tokens=64).device["reference"] == WHOLE


def test_a_value_function_may_be_offloaded_alone() -> None:
    both, value, none = (memory_of(cpu_offload=c, value_cpu_offload=v) for c, v in ((1, 1), (0, 1), (0, 0)))
    assert "optimizer" not in none.host and "optimizer" not in both.device
    assert value.device["optimizer"] == 12 * -(-EIGHT_BILLION.parameters // 8)
    assert both.host["optimizer"] > value.host["optimizer"] > 0


def test_what_is_partitioned_is_loaded_in_parts() -> None:
    whole, parts = (memory_of(reference_placement=p).host["files"] for p in ("device", "partitioned"))
    assert whole == 2 * WHOLE, "policy and reference are read before either goes to its device"
    assert WHOLE < parts < 1.1 * WHOLE
    trainer = Trainer(gpus=1, ranks=8, dtype="bfloat16", zero_stage=3)
    saving = 4 * 2**30 + 2**28
    assert rank_memory([EIGHT_BILLION], [EIGHT_BILLION], trainer, 64).host["files"] == saving < WHOLE
    stacked = Trained(architecture=dataclasses.replace(EIGHT_BILLION.architecture, stacked=True))
    assert rank_memory([stacked], [], trainer, 64).host["files"] == WHOLE, "experts are put together whole"


def test_experts_are_stacked_and_dense_layers_are_not() -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    assert of_config(MixtralConfig(**sizes, vocab_size=64)).stacked
    assert not any(of_config(config).stacked for config in NETWORKS.values())
