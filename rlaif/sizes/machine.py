"""What the nodes of a run have: as its configuration declares, or as measured where the run starts its own Ray."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from rlaif.config.cards import CARDS, CardProfile
from rlaif.config.schema import Config
from rlaif.sizes.training import GIBIBYTE

NVIDIA_SMI_S = 20.0
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class MeasuredCard:
    """The smallest GPU of this machine, by ``nvidia-smi``, and how many there are. ``memory``: bytes."""

    name: str
    memory: int
    driver: str
    capability: tuple[int, int]
    count: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Bytes of one node; None for what is not known. ``card``: of one GPU."""

    card: int | None
    profile: CardProfile | None
    name: str  #: of the card, for people
    capability: tuple[int, int] | None
    driver: str | None
    gpus_per_node: int
    memory: int | None
    disk: int | None


def machine_of(config: Config, *, is_here: bool = True) -> Machine:
    """``is_here``: whether a run without a cluster's address would be on this machine. A run with more GPUs than this
    machine has would not, and nothing is measured then. Else the less of what is declared and measured counts."""
    node, num_gpus = config.resources.node, config.resources.gpus
    is_here = is_here and config.resources.address is None
    found = measured_card() if is_here and num_gpus else None
    is_here = is_here and (num_gpus == 0 or (found is not None and found.count >= num_gpus))
    found = found if is_here else None
    declared = CARDS[node.gpu] if node.gpu else None
    profile = _profile_of(found) or declared if found else declared
    memory_gib = node.gpu_memory_gib or (declared.memory_gib if declared else None)
    return Machine(
        card=_least(memory_gib, found.memory if found else None),
        profile=profile,
        name=found.name if found else node.gpu or "the GPU",
        capability=found.capability if found else declared.capability if declared else None,
        driver=found.driver if found else node.driver,
        gpus_per_node=node.gpus or num_gpus,
        memory=_least(node.memory_gib, psutil.virtual_memory().total if is_here else None),
        disk=_least(node.disk_gib, _free_disk(Path(config.run_dir)) if is_here else None),
    )


def _least(declared_gib: float | None, measured: int | None) -> int | None:
    """Bytes."""
    sizes = [int(declared_gib * GIBIBYTE)] if declared_gib else []
    return min([*sizes, *([measured] if measured is not None else [])], default=None)


@functools.cache
def measured_card() -> MeasuredCard | None:
    """None on a machine without NVIDIA's tools. Makes no CUDA context, which would take memory of the card."""
    fields = "name,memory.total,memory.reserved,driver_version,compute_cap"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True).stdout
        return read_cards(printed)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def read_cards(printed: str) -> MeasuredCard | None:
    """What ``nvidia-smi`` prints, one line for each GPU. Raises ValueError for anything else."""
    lines = [[field.strip() for field in line.split(",")] for line in printed.splitlines() if line.strip()]
    cards = []
    for name, total, reserved, driver, capability in lines:
        major, minor = map(int, capability.split("."))
        memory = (int(total) - int(reserved)) * MEBIBYTE
        cards.append(MeasuredCard(name=name, memory=memory, driver=driver, capability=(major, minor), count=len(lines)))
    return min(cards, key=lambda card: card.memory, default=None)


def _profile_of(card: MeasuredCard) -> CardProfile | None:
    """The profile of that name and about that memory: ``NVIDIA A100-SXM4-80GB`` is ``A100-80GB``. None for others."""
    name = f"-{card.name.replace(' ', '-')}"
    for known, profile in CARDS.items():
        is_close = abs(profile.memory_gib * GIBIBYTE - card.memory) < 0.1 * card.memory
        if is_close and f"-{re.sub(r'-[0-9]+GB$', '', known)}" in name:
            return profile
    return None


def _free_disk(run_dir: Path) -> int | None:
    """Room in the first directory above ``run_dir`` that exists; what an earlier run has left there counts as room."""
    above = next((path for path in (run_dir, *run_dir.absolute().parents) if path.is_dir()), None)
    if above is None:
        return None
    held = sum(file.stat().st_size for file in run_dir.rglob("*") if file.is_file()) if run_dir.is_dir() else 0
    return shutil.disk_usage(above).free + held
