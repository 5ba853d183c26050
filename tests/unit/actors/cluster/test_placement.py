"""The resource plan: sums over phases, and shortages that name role, need, supply, and what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from rich.console import Console

from actors.cli.__main__ import main
from actors.cluster.placement import check, check_nodes, phases_of, plan, table
from rlaif.config.schema import Config
from rlaif.errors import PlacementError
from rlaif.sizes.phases import declared_resources

CONFIG = Config(
    generator={"min": 2, "max": 4, "gpus": 1, "cpus": 4, "tensor_parallel": 2},
    labeller={"gpus": 1, "cpus": 2, "placement": {"judge": 1}},
    scorer={"gpus": 0.5, "cpus": 1},
    policy_trainer={"ranks": 2, "gpus": 1, "cpus": 3},
    preference_trainer={"ranks": 8, "gpus": 1, "cpus": 0.25},
    resources={"cpus": 15, "gpus": 12, "custom": {"judge": 1}},
)


def test_the_peak_is_the_largest_sum_over_roles_that_live_together() -> None:
    needs = plan(CONFIG, phases_of(CONFIG))
    assert needs.peak == {"CPU": 2 * 4 + 1 + 2 * 3, "GPU": 8, "judge": 1}
    assert needs.busiest("CPU").name == "reinforce"
    assert needs.busiest("GPU").name == "fit_preference_model"
    check(needs, declared_resources(CONFIG))


def test_a_shortage_names_each_role_and_the_keys_to_change() -> None:
    with pytest.raises(PlacementError) as caught:
        check(plan(CONFIG, phases_of(CONFIG)), {"CPU": 15, "GPU": 6})
    assert str(caught.value).splitlines() == [
        "GPU: 'fit_preference_model' needs 8 at once, 6 available",
        "  preference_trainer: 8 x 1 = 8; lower preference_trainer.ranks or preference_trainer.gpus",
        "  or provide more: resources.gpus, or nodes that have it",
        "judge: 'label' needs 1 at once, 0 available",
        "  labeller: 1 x 1 = 1; lower labeller.min or labeller.placement.judge",
        "  or provide more: resources.custom.judge, or nodes that have it",
    ]


def test_fractions_that_add_up_to_everything_fit() -> None:
    pools = {role: {"cpus": 0.1} for role in ("generator", "labeller", "scorer")}
    config = Config(**pools, policy_trainer={"cpus": 0.1}, preference_trainer={"cpus": 0.1}, resources={"cpus": 0.3})
    check(plan(config, phases_of(config)), declared_resources(config))


def test_the_table_shows_roles_phases_and_the_peak() -> None:
    console = Console(width=120)
    with console.capture() as output:
        console.print(table(plan(CONFIG, phases_of(CONFIG))))
    lines = output.get().splitlines()
    assert any("generator" in line and "2 to 4" in line and "8 to 16" in line for line in lines)
    assert any("reinforce" in line and "2 generator + 1 scorer + 2 policy_trainer" in line for line in lines)
    assert any("at once, at most" in line and "15" in line and "8" in line for line in lines)


def test_every_engine_and_rank_must_find_a_node_that_has_all_of_it() -> None:
    pool = {"gpus": 1, "cpus": 2, "tensor_parallel": 4}
    trainer = {"cpus": 0}
    config = Config(generator={"cpus": 0}, labeller=pool, policy_trainer=trainer, preference_trainer=trainer)
    needs = plan(config, {"label": ("labeller",), "supervise": ("policy_trainer",)})
    check_nodes(needs, [{"GPU": 2, "CPU": 1}, {"GPU": 2, "CPU": 1}])  # tensor-parallel ranks may be on different nodes
    with pytest.raises(PlacementError) as caught:
        check_nodes(needs, [{"GPU": 4, "CPU": 0.25}, {"CPU": 8}])
    assert str(caught.value) == (
        "labeller: one rank needs CPU 0.5, GPU 1 on one node, and no node has that (most on any: CPU 8, GPU 4); "
        "lower labeller.cpus or labeller.gpus, or provide nodes that have it"
    )


def test_ranks_without_gpus_share_a_node() -> None:
    """They speak by gloo, which has no secret and stays on loopback."""
    supervise = {"supervise": ("policy_trainer",)}
    needs = plan(Config(policy_trainer={"cpus": 2, "ranks": 3}), supervise)
    check_nodes(needs, [{"CPU": 4}, {"CPU": 6}])
    with pytest.raises(PlacementError) as caught:
        check_nodes(needs, [{"CPU": 4}, {"CPU": 5}])
    assert str(caught.value) == (
        "policy_trainer: its 3 ranks, which without GPUs share a node, need CPU 6 on one node, and no node has that "
        "(most on any: CPU 5); lower policy_trainer.ranks or policy_trainer.cpus, or provide nodes that have it"
    )
    needs = plan(Config(policy_trainer={"cpus": 2, "gpus": 1, "ranks": 3}), supervise)
    check_nodes(needs, [{"CPU": 4, "GPU": 2}, {"CPU": 2, "GPU": 1}])


def test_a_resource_that_a_cluster_lacks_altogether_is_reported_as_a_sum() -> None:
    with pytest.raises(PlacementError, match="judge: 'label' needs 1 at once, 0 available\n  labeller: 1 x 1 = 1"):
        check_nodes(plan(CONFIG, phases_of(CONFIG)), [{"CPU": 15, "GPU": 6}, {"CPU": 15, "GPU": 6}])


CONFIGS = Path(__file__).parents[4] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_can_be_planned_without_starting_anything(path: Path, capsys, request) -> None:
    if path.stem == "small_real":
        request.getfixturevalue("small_model")
    with pytest.raises(SystemExit) as leaving:
        main(["plan", str(path)])
    assert leaving.value.code == 0
    assert "generator" in capsys.readouterr().out
    assert not ray.is_initialized()


def test_a_shipped_configuration_that_is_given_too_little_is_refused(capsys) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["plan", str(CONFIGS / "multi_node.yaml"), "resources.gpus=8"])
    assert leaving.value.code == 2
    assert "gpus" in capsys.readouterr().err.lower()
