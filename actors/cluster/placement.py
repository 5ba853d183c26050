"""The resources that a run needs, and whether it can have them: a pure plan, its check, its table. Knows no Ray.

Not all roles live at the same time: a run needs the largest sum over the phases of the story (``rlaif.sizes.phases``).
A pool counts with the size that it has in each, the table shows ``max`` as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.table import Column, Table

from rlaif.config.contradictions import pools_of, trainers_of
from rlaif.config.schema import Config
from rlaif.errors import PlacementError
from rlaif.sizes.phases import PHASES, ROUNDING, engine_resources, rank_resources, sizes
from rlaif.stages.pipeline import STAGES, story

Phases = Mapping[str, tuple[str, ...]]  #: roles by the phase in which they live


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a role claims: ``units`` engines or ranks (up to ``max_units``) of ``each`` resource by its Ray name.

    A unit lies on one node, except an engine of several tensor-parallel ``parts``: these are equal, and may lie on
    different nodes. Ranks without GPUs are ``together``: all on one.
    """

    role: str
    units: int
    max_units: int
    each: Mapping[str, float]
    parts: int = 1
    together: bool = False

    @property
    def piece(self) -> dict[str, float]:
        """What a node must have to hold the smallest part of this role."""
        units = self.units if self.together else 1
        return {name: amount * units / self.parts for name, amount in self.each.items() if amount}

    def total(self, resource: str, units: int | None = None) -> float:
        return self.each.get(resource, 0.0) * (self.units if units is None else units)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Roles that live at the same time."""

    name: str
    claims: tuple[Claim, ...]

    def need(self, resource: str) -> float:
        return sum(claim.total(resource) for claim in self.claims)


@dataclass(frozen=True, kw_only=True)
class ResourcePlan:
    claims: tuple[Claim, ...]
    phases: tuple[Phase, ...] = field(repr=False)

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of the resources that the roles claim, CPU and GPU first."""
        custom = {name for claim in self.claims for name in claim.each} - {"CPU", "GPU"}
        return ("CPU", "GPU", *sorted(custom))

    def busiest(self, resource: str) -> Phase:
        """The phase that needs the most of ``resource``."""
        return max(self.phases, key=lambda phase: phase.need(resource))

    @property
    def peak(self) -> dict[str, float]:
        """What must be available, by resource."""
        return {name: self.busiest(name).need(name) for name in self.resources}


def phases_of(config: Config) -> Phases:
    """The phases of the whole method that have pools or trainers."""
    phases = {name: PHASES[name](config) for stage in story(config) for name in STAGES[stage].phases}
    return {name: roles for name, roles in phases.items() if roles}


def plan(config: Config, phases: Phases) -> ResourcePlan:
    """The plan of a configuration for the roles in ``phases``. Starts nothing."""
    wanted = {role for roles in phases.values() for role in roles}
    sized = {name: sizes(config, roles) for name, roles in phases.items()}
    claims = {
        role: Claim(role=role, units=0, max_units=pool.max, each=engine_resources(pool), parts=pool.tensor_parallel)
        for role, pool in pools_of(config).items()
    } | {
        role: Claim(role=role, units=0, max_units=0, each=rank_resources(trainer), together=trainer.shares_a_node)
        for role, trainer in trainers_of(config).items()
    }
    return ResourcePlan(
        claims=tuple(_over_phases(claim, sized.values()) for claim in claims.values() if claim.role in wanted),
        phases=tuple(
            Phase(name=name, claims=tuple(replace(claims[role], units=units) for role, units in counts.items()))
            for name, counts in sized.items()
        ),
    )


def _over_phases(claim: Claim, sized: Iterable[Mapping[str, int]]) -> Claim:
    """A claim with its smallest size of all phases, and the largest that it may have."""
    units = [counts[claim.role] for counts in sized if claim.role in counts] or [0]
    return replace(claim, units=min(units), max_units=max(claim.max_units, *units))


def check(plan: ResourcePlan, available: Mapping[str, float]) -> None:
    """Raises PlacementError with one line for each role of the busiest phase that lacks a resource."""
    lines = [line for resource in plan.resources for line in _shortage(plan, resource, available)]
    if lines:
        raise PlacementError("\n".join(lines))


def check_nodes(plan: ResourcePlan, nodes: Sequence[Mapping[str, float]]) -> None:
    """As ``check``, for a cluster of ``nodes``: sums are not enough, because each engine and rank needs a node that has
    all of its resources. Raises PlacementError."""
    check(plan, {name: sum(node.get(name, 0.0) for node in nodes) for name in plan.resources})
    if lines := [line for claim in plan.claims for line in _homeless(claim, nodes)]:
        raise PlacementError("\n".join(lines))


def _homeless(claim: Claim, nodes: Sequence[Mapping[str, float]]) -> Iterable[str]:
    """Why no node can hold an engine or rank of a role, if none can."""
    if any(all(node.get(name, 0.0) + ROUNDING >= need for name, need in claim.piece.items()) for node in nodes):
        return
    who, counts = _needy(claim)
    needs = ", ".join(f"{name} {need:g}" for name, need in claim.piece.items())
    largest = ", ".join(f"{name} {max(node.get(name, 0.0) for node in nodes):g}" for name in claim.piece)
    keys = " or ".join((*counts, *(_size_key(claim.role, name) for name in claim.piece)))
    yield (
        f"{claim.role}: {who} {needs} on one node, and no node has that (most on any: {largest}); "
        f"lower {keys}, or provide nodes that have it"
    )


def _needy(claim: Claim) -> tuple[str, tuple[str, ...]]:
    """What must be on one node, as the subject of a sentence; the setting that says how many, if it may be several."""
    if claim.together and claim.units > 1:
        return f"its {claim.units} ranks, which without GPUs share a node, need", (count_key(claim.role),)
    is_rank = claim.parts > 1 or claim.role.endswith("_trainer")
    return ("one rank needs" if is_rank else "one engine needs"), ()


def _shortage(plan: ResourcePlan, resource: str, available: Mapping[str, float]) -> Iterable[str]:
    phase, have = plan.busiest(resource), available.get(resource, 0.0)
    if phase.need(resource) <= have + ROUNDING:
        return
    yield f"{resource}: '{phase.name}' needs {phase.need(resource):g} at once, {have:g} available"
    for claim in phase.claims:
        if claim.total(resource):
            yield (
                f"  {claim.role}: {claim.units} x {claim.each[resource]:g} = {claim.total(resource):g}; "
                f"lower {count_key(claim.role)} or {_size_key(claim.role, resource)}"
            )
    yield f"  or provide more: {_provision_key(resource)}"


def count_key(role: str) -> str:
    """The setting of how many engines or ranks a role has at least."""
    return f"{role}.ranks" if role.endswith("_trainer") else f"{role}.min"


def _size_key(role: str, resource: str) -> str:
    return f"{role}." + {"CPU": "cpus", "GPU": "gpus"}.get(resource, f"placement.{resource}")


def _provision_key(resource: str) -> str:
    key = {"CPU": "resources.cpus", "GPU": "resources.gpus"}.get(resource, f"resources.custom.{resource}")
    return f"{key}, or nodes that have it"


def table(plan: ResourcePlan) -> Table:
    """What ``rlaif plan`` prints: a row for each role, one for each phase with the sizes that its roles have in it, and
    the peak of each resource."""
    names = Column("", no_wrap=True)
    needs = Table(names, "engines or ranks", *plan.resources, title="What the run needs", title_justify="left")
    for claim in plan.claims:
        units = f"{claim.units}" if claim.units == claim.max_units else f"{claim.units} to {claim.max_units}"
        needs.add_row(claim.role, units, *(_amount(claim, name) for name in plan.resources))
    needs.add_section()
    for phase in plan.phases:
        roles = " + ".join(f"{claim.units} {claim.role}" for claim in phase.claims)
        needs.add_row(phase.name, roles, *(f"{phase.need(name):g}" for name in plan.resources))
    needs.add_section()
    needs.add_row("at once, at most", "", *(f"{amount:g}" for amount in plan.peak.values()))
    return needs


def _amount(claim: Claim, resource: str) -> str:
    least, most = claim.total(resource), claim.total(resource, claim.max_units)
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
