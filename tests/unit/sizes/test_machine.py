"""What a machine has: declared, or measured where the run will be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlaif.config.cards import CARDS
from rlaif.config.files import load_config
from rlaif.sizes.machine import MeasuredCard, machine_of, read_cards
from rlaif.sizes.training import GIBIBYTE

#: As drivers print it: of an H100 and of a smaller card beside it.
PRINTED = """\
NVIDIA H100 80GB HBM3, 81559, 551, 550.54.15, 9.0
NVIDIA L40S, 46068, 585, 550.54.15, 8.9
"""
UNDECLARED = [f"resources.node.{key}=null" for key in ("gpu", "memory_gib", "disk_gib")]


def card() -> MeasuredCard:
    found = read_cards(PRINTED.splitlines()[0])
    assert found is not None
    return found


def test_the_smallest_card_counts() -> None:
    found = read_cards(PRINTED)
    assert found is not None
    assert (found.name, found.memory, found.capability, found.count) == ("NVIDIA L40S", 45483 * 2**20, (8, 9), 2)
    assert read_cards("") is None
    with pytest.raises(ValueError):
        read_cards("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")


def test_what_is_not_declared_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.sizes.machine.measured_card", card)
    machine = machine_of(load_config("one_gpu", UNDECLARED))
    assert machine.card == 81008 * 2**20 and machine.driver == "550.54.15"
    assert machine.profile == CARDS["H100-80GB"]
    assert machine.memory is not None and machine.disk is not None


def test_the_less_of_what_is_declared_and_measured_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(card(), name="NVIDIA L40S", memory=44 * GIBIBYTE)
    monkeypatch.setattr("rlaif.sizes.machine.measured_card", lambda: small)
    machine = machine_of(load_config("one_gpu", ["resources.node.memory_gib=1"]))
    assert (machine.card, machine.memory, machine.profile) == (44 * GIBIBYTE, GIBIBYTE, CARDS["L40S"])


@pytest.mark.parametrize("found", [None, card()])
def test_a_machine_with_too_few_gpus_is_not_that_of_the_run(
    found: MeasuredCard | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.sizes.machine.measured_card", lambda: found)
    machine = machine_of(load_config("eight_gpu", UNDECLARED))
    assert (machine.card, machine.memory, machine.disk, machine.driver) == (None, None, None, None)
    declared = machine_of(load_config("eight_gpu"))
    assert declared.card == int(CARDS["H100-80GB"].memory_gib * GIBIBYTE)


@pytest.mark.parametrize(
    ("name", "mib", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", 81050, "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", 40400, "A100-40GB"),
        ("NVIDIA GeForce RTX 4090", 24200, "RTX-4090"),
        ("NVIDIA L4", 22600, "L4"),
        ("Tesla V100-SXM2-32GB", 32400, "V100-32GB"),
        ("NVIDIA H200", 143100, "H200"),
        ("Some Other Card", 81050, None),
    ],
)
def test_a_card_is_known_by_its_name_and_memory(
    name: str, mib: int, known: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(card(), name=name, memory=mib * 2**20)
    monkeypatch.setattr("rlaif.sizes.machine.measured_card", lambda: found)
    assert machine_of(load_config("one_gpu", UNDECLARED)).profile == (CARDS[known] if known else None)
