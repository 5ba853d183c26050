"""What does not fit is refused by name, with a setting that fits: it is tried. What is shipped fits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.cli.__main__ import main
from actors.cli.plan import summary
from actors.cluster.placement import check, phases_of, plan
from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.errors import ModelError, PlacementError
from rlaif.sizes.durations import durations
from rlaif.sizes.machine import machine_of
from rlaif.sizes.needs import read_models, run_needs
from rlaif.sizes.phases import declared_resources
from rlaif.sizes.refusals import check_sizes
from tests.public_models import LLAMA_8B

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
ON_GPUS = ("one_gpu", "eight_gpu", "multi_node", "paper")
pytestmark = pytest.mark.usefixtures("public_models", "no_gpus")


@dataclass(frozen=True, kw_only=True)
class Case:
    """``names``: how the line begins. ``setting``: what it says to change, and the value; None: nothing helps."""

    config: str = "eight_gpu"
    overrides: tuple[str, ...]
    names: str
    setting: str | None


CASES = {
    "engine: weights fill its share": Case(
        config="one_gpu",
        overrides=("labeller.gpu_memory_fraction=0.2",),
        names="labeller.gpu_memory_fraction=0.2: leaves no KV cache",
        setting="labeller.gpu_memory_fraction=0.25",
    ),
    "engine: the scorer's share": Case(
        config="one_gpu",
        overrides=("scorer.gpu_memory_fraction=0.05",),
        names="scorer.gpu_memory_fraction=0.05: leaves no KV cache",
        setting="scorer.gpu_memory_fraction=0.1",
    ),
    "engine: a 72B judge on one card": Case(
        overrides=("labeller.model=Qwen/Qwen2.5-72B-Instruct",),
        names="labeller.gpu_memory_fraction=0.9: leaves no KV cache",
        setting="labeller.tensor_parallel=",
    ),
    "engine: a 72B judge on two cards": Case(
        overrides=("labeller.model=Qwen/Qwen2.5-72B-Instruct", "labeller.tensor_parallel=2", "labeller.min=1"),
        names="labeller.gpu_memory_fraction=0.9: leaves no KV cache",
        setting="labeller.tensor_parallel=4",
    ),
    "engine: float32 weights": Case(
        overrides=("labeller.dtype=float32", "labeller.gpu_memory_fraction=0.7"),
        names="labeller.gpu_memory_fraction=0.7: leaves no KV cache",
        setting="labeller.gpu_memory_fraction=0.8",
    ),
    "engine: a cache for less than one sequence": Case(
        overrides=("generator.max_length=131072", "generator.gpu_memory_fraction=0.3"),
        names="generator.max_length=131072: the KV cache holds",
        setting="generator.gpu_memory_fraction=0.45",
    ),
    "engine: on a small card": Case(
        overrides=("resources.node.gpu=A100-40GB", "labeller.gpu_memory_fraction=0.75"),
        names="labeller.gpu_memory_fraction=0.75: leaves no KV cache",
        setting="labeller.gpu_memory_fraction=0.8",
    ),
    "ranks: activations that are not checkpointed": Case(
        overrides=("policy_trainer.checkpoint_activations=false",),
        names="policy_trainer: a rank needs",
        setting="policy_trainer.checkpoint_activations=true",
    ),
    "ranks: the preference trainer's activations": Case(
        overrides=("preference_trainer.checkpoint_activations=false", "preference_trainer.micro_batch_tokens=16384"),
        names="preference_trainer: a rank needs",
        setting="preference_trainer.checkpoint_activations=true",
    ),
    "ranks: a forward pass of 65,536 tokens": Case(
        overrides=("policy_trainer.micro_batch_tokens=65536",),
        names="policy_trainer: a rank needs",
        setting="policy_trainer.micro_batch_tokens=16384",
    ),
    "ranks: optimizer state on each": Case(
        overrides=("policy_trainer.zero_stage=0",),
        names="policy_trainer: a rank needs",
        setting="policy_trainer.zero_stage=3",
    ),
    "ranks: the optimizer shared, weights and gradients not": Case(
        overrides=(
            "preference_trainer.zero_stage=1",
            "preference_trainer.fit_ranks=2",
            "preference_trainer.grad_accum_dtype=bfloat16",
            "resources.node.memory_gib=900",
        ),
        names="preference_trainer: a rank needs",
        setting="preference_trainer.zero_stage=3",
    ),
    "ranks: too few": Case(
        overrides=("policy_trainer.ranks=1", "generator.min=1"),
        names="policy_trainer: a rank needs",
        setting="policy_trainer.ranks=5",
    ),
    "ranks: offload is what is left": Case(
        overrides=("policy_trainer.ranks=2", "preference_trainer.ranks=3", "resources.gpus=5"),
        names="policy_trainer: a rank needs",
        setting="policy_trainer.cpu_offload=true",
    ),
    "ranks: float32": Case(
        overrides=("policy_trainer.dtype=float32", "policy_trainer.micro_batch_tokens=65536"),
        names="policy_trainer: a rank needs",
        setting="policy_trainer.cpu_offload=true",
    ),
    "a shared card: shares that are too large together": Case(
        config="one_gpu",
        overrides=("generator.gpu_memory_fraction=0.8",),
        names="policy_trainer.gpus=0.6: one GPU holds generator",
        setting="generator.gpu_memory_fraction=0.5",
    ),
    "a shared card: a trainer beside engines": Case(
        config="one_gpu",
        overrides=("generator.gpu_memory_fraction=0.75", "labeller.gpu_memory_fraction=0.2"),
        names="labeller.gpu_memory_fraction=0.2",
        setting="labeller.gpu_memory_fraction=0.25",
    ),
    "host: all optimizers offloaded": Case(
        overrides=("policy_trainer.cpu_offload=true", "resources.node.memory_gib=256"),
        names="resources.node.memory_gib=256: 'reinforce' needs",
        setting="policy_trainer.cpu_offload=false",
    ),
    "disk: checkpoints": Case(
        overrides=("reinforcement.keep_checkpoints=20",),
        names="resources.node.disk_gib=2000: run_dir=runs/eight_gpu needs",
        setting="reinforcement.keep_checkpoints=9",
    ),
    "disk: less than any checkpoint": Case(
        overrides=("resources.node.disk_gib=100",),
        names="resources.node.disk_gib=100: run_dir=runs/eight_gpu needs",
        setting=None,
    ),
    "card: too old for bfloat16": Case(
        config="one_gpu",
        overrides=("resources.node.gpu=V100-32GB", "resources.node.gpu_memory_gib=80"),
        names="generator.dtype=bfloat16: V100-32GB has compute capability 7.0, and bfloat16 needs 8.0",
        setting="generator.dtype=float32",
    ),
    "driver: too old": Case(
        overrides=("resources.node.driver=570.86.10",),
        names="resources.node.driver=570.86.10: the CUDA 13 builds of torch and vLLM need 580.65.06",
        setting=None,
    ),
    "card: half as large": Case(
        overrides=("resources.node.gpu=L40S",),
        names="policy_trainer: a rank needs",
        setting="policy_trainer.value_cpu_offload=true",
    ),
}


def lines_of(config: Config) -> list[str]:
    try:
        check(plan(config, phases_of(config)), declared_resources(config))
        check_sizes(config, phases_of(config))
    except PlacementError as error:
        return str(error).splitlines()
    return []


def suggested(line: str) -> list[str]:
    """The first suggestion, as overrides."""
    return line.rpartition("; set ")[2].split(", or ")[0].split()


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_refused_with_what_would(name: str) -> None:
    case = CASES[name]
    lines = lines_of(load_config(case.config, list(case.overrides)))
    line = next((line for line in lines if line.startswith(case.names)), None)
    assert line is not None, lines
    print(line)
    if case.setting is None:
        assert "; set " not in line
        return
    assert any(setting.startswith(case.setting) for setting in suggested(line)), line
    overrides = list(case.overrides)
    for _ in range(8):  # other lines may be mended by theirs
        if not lines:
            break
        overrides += suggested(lines[0])
        after = lines_of(load_config(case.config, overrides))
        assert lines[0] not in after, "the suggestion does not mend what it is for"
        lines = after
    assert lines == []


# -------------------------------------------------------------------------------------- models that are not known
def with_config(tmp_path: Path, values: object) -> Config:
    (tmp_path / "config.json").write_text(json.dumps(values))
    return load_config("eight_gpu", [f"resources.architectures={{meta-llama/Llama-3.1-8B: {tmp_path}}}"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llamadrome"}, "its architecture 'llamadrome' is unknown to transformers"),
        ({"model_type": "t5"}, "its architecture 't5' generates no text"),
    ],
)
def test_an_unknown_architecture_is_named(tmp_path: Path, change: Mapping[str, str], says: str) -> None:
    config = with_config(tmp_path, {**LLAMA_8B, **change})
    with pytest.raises(ModelError) as raised:
        check_sizes(config, phases_of(config))
    policy, scored = str(raised.value).splitlines()
    assert policy.startswith(f"supervision.base_model=meta-llama/Llama-3.1-8B: {says}"), policy
    assert scored.startswith("preference_model.base_model=")


def test_a_model_that_the_hub_does_not_show_is_left_out_of_the_plan_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = load_config("eight_gpu", ["labeller.model=some/judge"])
    needs = check_sizes(config, phases_of(config))
    assert set(needs.unknown) == {"labeller.model"}
    assert {unit.role for unit in needs.units} == {"generator", "scorer", "policy_trainer", "preference_trainer"}
    main_until_exit(["plan", "eight_gpu", "labeller.model=some/judge"])
    said = " ".join(capsys.readouterr().out.split())
    assert "note: labeller.model=some/judge: is not in the local cache" in said
    assert 'resources.architectures={"some/judge": FILE}' in said


def main_until_exit(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_an_architecture_that_is_named_stands_for_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    named = ["labeller.model=some/judge", f"resources.architectures={{some/judge: {tmp_path}/config.json}}"]
    needs = check_sizes(load_config("eight_gpu", named), phases_of(load_config("eight_gpu", named)))
    assert not needs.unknown
    assert needs.architectures["labeller.model"].parameters == 8_030_261_248


# ------------------------------------------------------------------------------------------------ what is shipped
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_configuration_fits(file: Path, request: pytest.FixtureRequest) -> None:
    if file.stem == "small_real":
        request.getfixturevalue("small_model")
    config = load_config(file)
    needs = check_sizes(config, phases_of(config))
    assert not needs.unknown
    if file.stem in ON_GPUS:
        assert needs.machine.card is not None and needs.machine.memory is not None and needs.machine.disk is not None


@pytest.mark.parametrize("name", ON_GPUS)
def test_a_shipped_configuration_says_what_the_plan_says(name: str) -> None:
    config = load_config(name)
    phases = phases_of(config)
    needs = run_needs(config, phases, machine_of(config), read_models(config, phases))
    says = [f"#   {line}" for line in summary(needs, durations(config, needs))]
    written = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    told = [line for line in written if re.match(r"#   (GPU|host memory|disk|models|time)", line)]
    assert told == says, "\n".join(["write below `# rlaif plan:`", *says])


def test_the_command_prints_tables_and_refuses_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_until_exit(["plan", "one_gpu"]) == 0
    shown = capsys.readouterr().out
    assert "KV cache" in shown and "estimated time" in shown and "an estimate" in shown
    assert main_until_exit(["plan", "one_gpu", "labeller.gpu_memory_fraction=0.2"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: labeller.gpu_memory_fraction=0.2: leaves no KV cache")
    assert "KV cache" in said.out
