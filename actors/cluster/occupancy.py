"""What share of the GPUs each phase of a run holds, and why a phase leaves some idle. Pure; knows no Ray.

A GPU counts as busy in a phase when an engine or a rank of that phase has it, or a share of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from actors.cluster.placement import Phase, ResourcePlan, count_key
from rlaif.config.contradictions import pools_of, trainers_of
from rlaif.config.schema import Config
from rlaif.sizes.phases import ROUNDING

BUSY = 0.9  #: a phase that holds less of the GPUs is named


def busy_gpus(phase: Phase) -> float:
    """GPUs that the phase holds; shares are put on as few as can hold them."""
    shares = sum(claim.total("GPU") for claim in phase.claims if claim.each["GPU"] < 1)
    return phase.need("GPU") - shares + math.ceil(shares - ROUNDING)


def busy_share(phase: Phase, gpus: float) -> float:
    """The share of ``gpus`` that the phase holds; 1 where there are none."""
    return busy_gpus(phase) / gpus if gpus else 1.0


def idle_phases(plan: ResourcePlan, config: Config) -> Iterator[str]:
    """A line for each phase that leaves more than a tenth of the GPUs idle: what fixes its size, and what would fill
    it."""
    gpus = config.resources.gpus
    for phase in plan.phases:
        if busy_share(phase, gpus) < BUSY:
            why = ", ".join(
                _why(config, claim.role, claim.units, alone=len(phase.claims) == 1) for claim in phase.claims
            )
            yield f"{phase.name}: {busy_gpus(phase):g} of {gpus} GPUs are busy: {why}"


def _why(config: Config, role: str, units: int, *, alone: bool) -> str:
    pool = pools_of(config).get(role)
    if pool is None:
        if not alone:
            return f"{count_key(role)}={units} is fixed"
        fit_ranks = trainers_of(config)[role].fit_ranks
        if fit_ranks == "auto":
            return f"{units} ranks of {role}, as many as a batch has rows or as fit"
        key = f"{role}.fit_ranks" if fit_ranks else f"{role}.ranks"
        return (
            f"{key}={units} is fixed ({role}.fit_ranks=auto: all that fit; ranks on several hosts need a fast network)"
        )
    if not pool.gpus:
        return f"{role} asks for none"
    if pool.engines == "auto":
        return f"{role}.max={pool.max}" if units == pool.max else f"{units} {role} engines fit"
    return f"{role}.min={units} ({role}.engines=auto: all that fit, up to {role}.max)"
