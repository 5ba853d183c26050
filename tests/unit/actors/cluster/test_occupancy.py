"""Shipped configurations keep the GPUs busy in every phase, and ``plan`` names those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.cli.__main__ import main
from actors.cluster.occupancy import busy_share, idle_phases
from actors.cluster.placement import phases_of, plan
from rlaif.config.files import load_config
from rlaif.config.schema import Config

CONFIGS = Path(__file__).parents[4] / "configs"


def shares(config: Config) -> dict[str, float]:
    return {phase.name: busy_share(phase, config.resources.gpus) for phase in plan(config, phases_of(config)).phases}


@pytest.mark.parametrize(
    ("name", "idle"),
    [
        ("one_gpu", set()),
        ("eight_gpu", set()),
        ("multi_node", {"supervise", "fit_preference_model"}),  # the ranks of a fit stay on one host
    ],
)
def test_every_phase_is_busy_but_for_those_that_are_named(name: str, idle: set[str]) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    assert {phase for phase, share in shares(config).items() if share < 0.9} == idle
    lines = list(idle_phases(plan(config, phases_of(config)), config))
    assert {line.partition(":")[0] for line in lines} == idle
    assert all(share <= 1 for share in shares(config).values())


def test_fits_fill_a_cluster_that_lets_them() -> None:
    changes = ["policy_trainer.fit_ranks=auto", "preference_trainer.fit_ranks=auto"]
    assert min(shares(load_config(CONFIGS / "multi_node.yaml", changes)).values()) == 1.0


def test_plan_says_what_keeps_gpus_idle_and_what_would_fill_them(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["plan", str(CONFIGS / "eight_gpu.yaml"), "labeller.engines=min", "policy_trainer.fit_ranks=2"])
    said = capsys.readouterr().out
    assert "label: 1 of 8 GPUs are busy: labeller.min=1 (labeller.engines=auto: all that fit" in said
    assert "supervise: 2 of 8 GPUs are busy: policy_trainer.fit_ranks=2 is fixed" in said
    assert "revise:" not in said
    assert "roles of one phase divide its GPUs" in said
