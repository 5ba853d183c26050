"""The estimate of time, beside arithmetic by hand."""

from __future__ import annotations

import pytest

from actors.cluster.placement import phases_of
from rlaif.config.files import load_config
from rlaif.sizes.durations import OFFLOADED_PER_S, ROWS, TRAINING_SHARE, Duration, durations
from rlaif.sizes.machine import machine_of
from rlaif.sizes.needs import read_models, run_needs

pytestmark = pytest.mark.usefixtures("public_models", "no_gpus")


def estimated(name: str, *overrides: str) -> dict[str, Duration]:
    config = load_config(name, list(overrides))
    phases = phases_of(config)
    needs = run_needs(config, phases, machine_of(config), read_models(config, phases))
    return {duration.phase: duration for duration in durations(config, needs)}


def test_every_phase_of_a_configuration_with_a_known_card_is_estimated() -> None:
    found = estimated("eight_gpu")
    assert list(found) == ["revise", "supervise", "compare", "label", "fit_preference_model", "reinforce", "evaluate"]
    assert all(duration.is_whole and duration.seconds > 0 for duration in found.values())


def test_training_is_eight_flops_a_parameter_and_token_when_layers_are_computed_again() -> None:
    found = estimated("eight_gpu")["supervise"]
    rows = 40_000 * 2 + 40_000
    tokens = rows * (200 + 0.6 * 512)
    assert found.rows == rows
    assert found.seconds == pytest.approx(8 * 8_030_261_248 * tokens / (8 * TRAINING_SHARE * 989e12))
    without = estimated("eight_gpu", "policy_trainer.checkpoint_activations=false")
    assert without["supervise"].seconds == pytest.approx(found.seconds * 6 / 8)


def test_an_optimizer_on_cpus_takes_its_time() -> None:
    slow, fast = (estimated("one_gpu", f"policy_trainer.cpus={cpus}")["supervise"] for cpus in (1, 10))
    steps = slow.rows / 128
    assert slow.seconds - fast.seconds == pytest.approx(0.9 * steps * 1_543_714_304 / OFFLOADED_PER_S)


def test_a_source_that_names_no_number_of_rows_is_estimated_for_a_thousand() -> None:
    found = estimated("one_gpu", "data.red_team=hf:Anthropic/hh-rlhf/harmless-base")
    assert not found["label"].is_whole and found["label"].rows == ROWS
    assert found["reinforce"].is_whole


def test_without_a_profile_there_is_no_estimate() -> None:
    assert estimated("eight_gpu", "resources.node.gpu=null", "resources.node.gpu_memory_gib=80") == {}
    assert estimated("quickstart") == {}


def test_more_cards_take_less_time_and_rationales_more() -> None:
    few, many = (estimated("eight_gpu", f"labeller.max={n}")["label"] for n in (2, 8))
    assert many.seconds == pytest.approx(few.seconds / 4)
    thinking = estimated("eight_gpu", "labelling.reasoning.mode=greedy")["label"]
    assert thinking.seconds > estimated("eight_gpu")["label"].seconds


def test_phases_in_which_a_role_has_no_gpu_are_not_estimated() -> None:
    found = estimated("quickstart", "resources.gpus=1", "resources.node.gpu=H100-80GB", "policy_trainer.gpus=1")
    assert list(found) == ["supervise"], "the others have a role, or all, on CPUs"
