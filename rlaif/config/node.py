"""What one machine has, so that a run can be planned on another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rlaif.config.cards import CARDS
from rlaif.config.section import Gibibytes, Section, Units

if TYPE_CHECKING:
    CardName = str
else:
    CardName = Literal[tuple(CARDS)]


class Node(Section):
    """What each node has, for `rlaif plan`. Where Ray is started on this machine, it is measured as well, and the less
    counts; what is null of a cluster is not known and not checked."""

    gpu: CardName | None = Field(
        None, description="the card, which tells memory and speed; null: measured, or not known"
    )
    gpu_memory_gib: Gibibytes | None = Field(None, description="memory of one GPU; null: that of the card")
    gpus: Units | None = Field(None, description="GPUs of one node; null: all of them are in one node")
    memory_gib: Gibibytes | None = Field(None, description="host memory of one node; null: measured, or not known")
    disk_gib: Gibibytes | None = Field(
        None, description="room for run_dir where that is stored; null: measured, or not known"
    )
    driver: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")] | None = Field(
        None, description="NVIDIA driver, e.g. '580.65.06'; null: measured, or not known"
    )
