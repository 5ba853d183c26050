"""What the nodes of a run have: as its configuration declares, or as measured where the run starts its own Ray."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from rlaif.config.cards import CARDS, CardProfile
from rlaif.config.schema import Config
from rlaif.sizes.training import GIBIBYTE

NVIDIA_SMI_S = 20.0
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class MeasuredCard:
    """The smallest GPU of this machine, by ``nvidia-smi``."""

    name: str
    memory: int
    driver: str
    capability: tuple[int, int]


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
    """``is_here``: whether a run without a cluster's address would be on this machine. A run with GPUs would not be on
    a machine without any, of which nothing is measured then."""
    node, is_here = config.resources.node, is_here and config.resources.address is None
    found = measured_card() if is_here and config.resources.gpus else None
    is_here = is_here and (found is not None or not config.resources.gpus)
    profile = CARDS[node.gpu] if node.gpu else None
    card = int(node.gpu_memory_gib * GIBIBYTE) if node.gpu_memory_gib else None
    if card is None and profile is not None:
        card = int(profile.memory_gib * GIBIBYTE)
    if card is None and found is not None:
        card = found.memory
    seen = found if profile is None else None  # what is declared goes before what is here
    capability = profile.capability if profile else seen.capability if seen else None
    memory = int(node.memory_gib * GIBIBYTE) if node.memory_gib else psutil.virtual_memory().total if is_here else None
    disk = int(node.disk_gib * GIBIBYTE) if node.disk_gib else _free_disk(Path(config.run_dir)) if is_here else None
    return Machine(
        card=card,
        profile=profile or (_profile_of(seen) if seen else None),
        name=node.gpu or (seen.name if seen else "the GPU"),
        capability=capability,
        driver=node.driver or (found.driver if found else None),
        gpus_per_node=node.gpus or config.resources.gpus,
        memory=memory,
        disk=disk,
    )


@functools.cache
def measured_card() -> MeasuredCard | None:
    """None on a machine without NVIDIA's tools. Makes no CUDA context, which would take memory of the card."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits"]
    try:
        printed = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True).stdout
        return min((_card(line) for line in printed.splitlines()), key=lambda card: card.memory, default=None)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _card(line: str) -> MeasuredCard:
    name, mib, driver, capability = (field.strip() for field in line.split(","))
    major, minor = capability.split(".")
    return MeasuredCard(name=name, memory=int(mib) * MIB, driver=driver, capability=(int(major), int(minor)))


def _profile_of(card: MeasuredCard) -> CardProfile | None:
    """The profile whose name and memory fit best; None for a card that is not in the table."""
    return next(
        (
            profile
            for name, profile in CARDS.items()
            if name.split("-")[0] in card.name.replace("RTX ", "RTX-").split()[-1:] + card.name.split()
            and abs(profile.memory_gib * GIBIBYTE - card.memory) < 0.1 * card.memory
        ),
        None,
    )


def _free_disk(run_dir: Path) -> int | None:
    """Room in the first directory above ``run_dir`` that exists; what an earlier run has left there counts as room."""
    above = next((path for path in (run_dir, *run_dir.absolute().parents) if path.is_dir()), None)
    if above is None:
        return None
    held = sum(file.stat().st_size for file in run_dir.rglob("*") if file.is_file()) if run_dir.is_dir() else 0
    return shutil.disk_usage(above).free + held
