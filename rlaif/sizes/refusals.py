"""What does not fit, one line each, with the setting to change and the value that fits: found by trying it.

Nothing starts here. A line is ``ROLE.KEY=VALUE: what is wrong; set KEY=VALUE``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.config.cards import MIN_CAPABILITY, MIN_DRIVER
from rlaif.config.contradictions import contradictions, flatten, pools_of, trainers_of
from rlaif.config.schema import Config
from rlaif.errors import PlacementError, format_value
from rlaif.sizes.machine import Machine, machine_of
from rlaif.sizes.needs import Models, RolesOf, RunNeeds, Unit, gib, read_models, run_needs
from rlaif.sizes.training import GIBIBYTE, Parts

NewValue = tuple[str, Any]  #: a key and its new value
MAX_CHOICES = 3
MAX_RANKS = 1024
MOST_RANKS_TRIED_ONE_BY_ONE = 16
#: Of a card that one role has to itself; a process that starts beside it, or fragmentation, takes the rest.
MOST_OF_CARD = 0.98
MOST_OF_ENGINE = 90  #: per cent of a card that an engine is given


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """What is wrong, and the settings that may mend it: for each key its values, the best first. ``subject`` tells
    misfits apart, and ``excess`` is by how many bytes. ``otherwise``: what to do when no setting helps."""

    subject: tuple[str, ...]
    excess: int
    problem: str
    remedies: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    otherwise: str


def check_sizes(config: Config, phases: RolesOf, *, is_here: bool = True) -> RunNeeds:
    """What the run needs. ``is_here``: whether this machine sees the models, and is what the run has without a cluster.

    Raises ModelError for models that cannot be used, PlacementError, with one line each, for what cannot be had.
    """
    machine, models = machine_of(config, is_here=is_here), read_models(config, phases, is_here=is_here)
    needs = run_needs(config, phases, machine, models)
    if lines := refusals(config, phases, needs, models):
        raise PlacementError("\n".join(lines))
    return needs


def refusals(config: Config, phases: RolesOf, needs: RunNeeds, models: Models) -> list[str]:
    """A line for each misfit, with what would fit."""
    search = _Search(config=config, phases=phases, machine=needs.machine, models=models)
    return [*_unsuitable(config, needs), *(search.line(misfit) for misfit in misfits(config, needs))]


def _unsuitable(config: Config, needs: RunNeeds) -> Iterator[str]:
    """A card or a driver that is too old, whatever is set."""
    machine = needs.machine
    if not config.resources.gpus:
        return
    if machine.capability is not None and machine.capability < MIN_CAPABILITY:
        dtypes = {role: settings.dtype for role, settings in pools_of(config).items()}
        dtypes |= {role: settings.dtype for role, settings in trainers_of(config).items()}
        used = {unit.role for unit in needs.units if unit.gpus}
        for role in (role for role, dtype in dtypes.items() if role in used and dtype == "bfloat16"):
            has, needed = (".".join(map(str, version)) for version in (machine.capability, MIN_CAPABILITY))
            yield (
                f"{role}.dtype=bfloat16: {machine.name} has compute capability {has}, and bfloat16 needs {needed}; "
                f"set {role}.dtype=float32, or use an A100 or a later card"
            )
    if machine.driver is not None and tuple(map(int, machine.driver.split("."))) < MIN_DRIVER:
        needed = "{}.{:02}.{:02}".format(*MIN_DRIVER)
        yield (
            f"resources.node.driver={machine.driver}: the CUDA 13 builds of torch and vLLM need {needed}; "
            "install that driver or a later one"
        )


def misfits(config: Config, needs: RunNeeds) -> list[Misfit]:
    """All of them, each subject once: where it is worst."""
    of_phases = ((*_of_engines(config, needs, phase), *_of_cards(config, needs, phase)) for phase in needs.phases)
    worst: dict[tuple[str, ...], Misfit] = {}
    for misfit in (*itertools.chain.from_iterable(of_phases), *_of_nodes(config, needs), *_of_disk(config, needs)):
        known = worst.get(misfit.subject)
        if known is None or misfit.excess > known.excess:
            worst[misfit.subject] = misfit
    return list(worst.values())


# ---------------------------------------------------------------------------------------------------------- cards
def _of_engines(config: Config, needs: RunNeeds, phase: str) -> Iterator[Misfit]:
    """Engines without room for a cache, or for one sequence in it."""
    for unit in needs.of_phase(phase):
        engine, settings = unit.engine, pools_of(config).get(unit.role)
        if engine is None or settings is None or (unit.gpus and needs.machine.card is None):
            continue
        name = "gpu_memory_fraction" if unit.gpus else "kv_cache_gib"
        if engine.cache <= 0:
            problem = (
                f"{unit.role}.{name}={getattr(settings, name):g}: leaves no KV cache in '{phase}': "
                f"{_listed(engine.parts)} of {gib(engine.budget)}"
            )
        elif engine.sequences < 1:
            problem = (
                f"{unit.role}.max_length={settings.max_length}: the KV cache holds {engine.cached_tokens:,} tokens in "
                f"'{phase}', less than one sequence"
            )
        else:
            continue
        least = math.ceil((sum(engine.parts.values()) + engine.token_bytes * engine.max_length) / GIBIBYTE)
        yield Misfit(
            subject=("cache", unit.role),
            excess=engine.token_bytes * engine.max_length - engine.cache,
            problem=problem,
            remedies=_engine_remedies(config, unit),
            otherwise=f"take a smaller model, or a card with more than {least} GiB",
        )


def _of_cards(config: Config, needs: RunNeeds, phase: str) -> Iterator[Misfit]:
    """Cards whose roles together want more than there is."""
    card = needs.machine.card
    if card is None:
        return
    for unit in needs.of_phase(phase):
        if unit.gpus and unit.rank is not None and unit.device > MOST_OF_CARD * card:
            yield Misfit(
                subject=("card", unit.role),
                excess=unit.device - card,
                problem=(
                    f"{unit.role}: a rank needs {gib(unit.device)} of GPU memory in '{phase}' "
                    f"({_listed(unit.rank.device)}), and {needs.machine.name} has {gib(card)}"
                ),
                remedies=_trainer_remedies(config, unit),
                otherwise=f"take a smaller model, or a card with more than {math.ceil(unit.device / GIBIBYTE)} GiB",
            )
    size, units = needs.fullest_card(phase)
    if len(units) > 1 and size > card and all(unit.device <= MOST_OF_CARD * card for unit in units):
        roles = tuple(dict.fromkeys(unit.role for unit in units))
        each = ", ".join(f"{unit.role} {gib(unit.device)}" for unit in units)
        remedies = [
            _trainer_remedies(config, unit) if unit.rank is not None else _engine_remedies(config, unit)
            for unit in sorted(units, key=lambda unit: -unit.device)
        ]
        yield Misfit(
            subject=("shared", *roles),
            excess=size - card,
            problem=(
                f"{roles[-1]}.gpus={units[-1].gpus:g}: one GPU holds {each} in '{phase}', "
                f"{gib(size)} together, and {needs.machine.name} has {gib(card)}"
            ),
            remedies=tuple(itertools.chain.from_iterable(remedies)),
            otherwise="give the roles more GPUs, or take smaller models",
        )


def _engine_remedies(config: Config, unit: Unit) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    role, settings = unit.role, pools_of(config)[unit.role]
    if not unit.gpus:
        caches = tuple(2.0**power for power in range(0, 8) if 2.0**power > settings.kv_cache_gib)
        return ((f"{role}.kv_cache_gib", caches), (f"{role}.max_length", _halves(settings.max_length, 256)))
    fractions = sorted(
        (n / 100 for n in range(5, MOST_OF_ENGINE + 1, 5)), key=lambda f: abs(f - settings.gpu_memory_fraction)
    )
    most = max(1, config.resources.gpus)
    ranks = tuple(n for n in (2, 4, 8, 16) if settings.tensor_parallel < n <= most)
    return (
        (f"{role}.gpu_memory_fraction", tuple(fractions)),
        (f"{role}.tensor_parallel", ranks),
        (f"{role}.max_length", _halves(settings.max_length, 256)),
        (f"{role}.max_in_flight", _halves(settings.max_in_flight, settings.chunk_rows)),
        *_fewer(config, role),
    )


def _fewer(config: Config, role: str) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Fewer engines. A pool that grows by itself needs a larger ``max`` than ``min``."""
    pool = pools_of(config)[role]
    grows = pool.engines == "auto" or pool.autoscale.enabled
    fewest = (f"{role}.min", _halves(pool.min, 1))
    return ((f"{role}.max", _halves(pool.max, pool.min + 1)), fewest) if grows else (fewest,)


def _trainer_remedies(config: Config, unit: Unit) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    role, trainer = unit.role, trainers_of(config)[unit.role]
    least = config.supervision.max_length if role == "policy_trainer" else config.preference_model.max_length
    sized = "ranks" if unit.phase == "reinforce" or trainer.fit_ranks is None else "fit_ranks"
    doubles = (unit.count * 2**power for power in range(1, 8))
    more = sorted({*range(unit.count + 1, MOST_RANKS_TRIED_ONE_BY_ONE + 1), *doubles})
    in_reinforcement = role == "policy_trainer" and unit.phase == "reinforce"
    elsewhere = ("partitioned", "host") if unit.count > 1 else ("host",)
    return (
        (f"{role}.checkpoint_activations", (True,) if not trainer.checkpoints_activations else ()),
        (f"{role}.micro_batch_tokens", _halves(trainer.micro_batch_tokens, least)),
        (f"{role}.reference_placement", elsewhere if in_reinforcement and trainer.places_reference == "device" else ()),
        (f"{role}.zero_stage", tuple(range(trainer.zero_stage + 1, 4))),
        (f"{role}.{sized}", tuple(ranks for ranks in more if ranks <= min(MAX_RANKS, config.resources.gpus))),
        (f"{role}.value_cpu_offload", (True,) if in_reinforcement and not trainer.of_value.cpu_offload else ()),
        (f"{role}.cpu_offload", (True,) if not trainer.cpu_offload else ()),
    )


def _halves(value: int, least: int) -> tuple[int, ...]:
    """``value`` halved again and again, not below ``least``, which is the last."""
    halves = list(itertools.takewhile(lambda half: half > least, (value >> n for n in range(1, 20))))
    return (*halves, least) if least < value else ()


# ------------------------------------------------------------------------------------------------- nodes and disk
def _of_nodes(config: Config, needs: RunNeeds) -> Iterator[Misfit]:
    have = needs.machine.memory
    if have is None or not needs.phases:
        return
    phase = max(needs.phases, key=needs.fullest_node)
    need = needs.fullest_node(phase)
    if need <= have:
        return
    units = sorted(needs.of_phase(phase), key=lambda unit: -unit.host * unit.count)
    each = ", ".join(f"{unit.role} {unit.count} x {gib(unit.host)}" for unit in units)
    trainers = trainers_of(config)
    could_wait = config.reinforcement.checkpoint_in_background and phase == "reinforce"
    remedies: list[tuple[str, tuple[Any, ...]]] = [
        ("reinforcement.checkpoint_in_background", (False,) if could_wait else ())
    ]
    for unit in units:
        if unit.role in trainers:
            stages = () if trainers[unit.role].zero_stage == 3 else (3,)
            remedies += [(f"{unit.role}.cpu_offload", (False,)), (f"{unit.role}.zero_stage", stages)]
        else:
            remedies += _fewer(config, unit.role)
    yield Misfit(
        subject=("host",),
        excess=need - have,
        problem=f"resources.node.memory_gib={have / GIBIBYTE:.0f}: '{phase}' needs {gib(need)} on one node ({each})",
        remedies=tuple(remedies),
        otherwise=f"take smaller models, or nodes with {math.ceil(need / GIBIBYTE)} GiB",
    )


def _of_disk(config: Config, needs: RunNeeds) -> Iterator[Misfit]:
    have = needs.machine.disk
    if have is None or needs.disk <= have:
        return
    keep = config.reinforcement.keep_checkpoints
    room = (have - needs.models) // needs.checkpoint - (needs.num_checkpoints - keep) if needs.checkpoint else 0
    yield Misfit(
        subject=("disk",),
        excess=needs.disk - have,
        problem=(
            f"resources.node.disk_gib={have / GIBIBYTE:.0f}: run_dir={config.run_dir} needs {gib(needs.disk)}: "
            f"{needs.num_checkpoints} checkpoints of {gib(needs.checkpoint)} and models of {gib(needs.models)}"
        ),
        remedies=(("reinforcement.keep_checkpoints", (room,) if 0 < room < keep else ()),),
        otherwise=f"choose a run_dir with {math.ceil(needs.disk / GIBIBYTE)} GiB",
    )


def _listed(parts: Parts) -> str:
    return ", ".join(f"{name} {size / GIBIBYTE:.1f}" for name, size in parts.items() if size >= 0.05 * GIBIBYTE)


# ------------------------------------------------------------------------------------------------------- the search
@dataclass(frozen=True, kw_only=True)
class _Search:
    """Tries settings until the plan fits."""

    config: Config
    phases: RolesOf
    machine: Machine
    models: Models

    def line(self, misfit: Misfit) -> str:
        singles = [change for change in map(lambda r: self._first(misfit, r), misfit.remedies) if change]
        if singles:
            return f"{misfit.problem}; set " + ", or ".join(map(_written, singles[:MAX_CHOICES]))
        if together := self._together(misfit):
            return f"{misfit.problem}; set " + " ".join(map(_written, together))
        return f"{misfit.problem}; no setting makes it fit: {misfit.otherwise}"

    def _first(self, misfit: Misfit, remedy: tuple[str, Sequence[Any]]) -> NewValue | None:
        """The first value of one key with which nothing is wrong that was not before, and the misfit is gone."""
        key, values = remedy
        return next(((key, value) for value in values if self._mends(misfit, [(key, value)])), None)

    def _together(self, misfit: Misfit) -> tuple[NewValue, ...]:
        """Two changes that mend it together, or else the furthest of each key; empty if that does not help either."""
        for (one, values), (other, others) in itertools.combinations(misfit.remedies, 2):
            for pair in itertools.product(values, others):
                if self._mends(misfit, changes := tuple(zip((one, other), pair, strict=True))):
                    return changes
        furthest = tuple((key, values[-1]) for key, values in misfit.remedies if values)
        return furthest if self._mends(misfit, furthest) else ()

    def _mends(self, misfit: Misfit, changes: Sequence[NewValue]) -> bool:
        changed = with_values(self.config, dict(changes))
        if not changes or any(True for _ in contradictions(changed)) or self._takes_too_many(changed):
            return False
        before, after = self._subjects(self.config), self._subjects(changed)
        return misfit.subject not in after and after <= before

    def _subjects(self, config: Config) -> set[tuple[str, ...]]:
        needs = run_needs(config, self.phases, self.machine, self.models)
        return {misfit.subject for misfit in misfits(config, needs)}

    def _takes_too_many(self, config: Config) -> bool:
        """Whether a phase holds more GPUs than are declared, and did not before."""
        return self._gpus(config) > max(config.resources.gpus, self._gpus(self.config))

    def _gpus(self, config: Config) -> float:
        needs = run_needs(config, self.phases, self.machine, self.models)
        return max(map(needs.held_gpus, needs.phases), default=0.0)


def _written(change: NewValue) -> str:
    return f"{change[0]}={format_value(change[1])}"


def with_values(config: Config, changes: Mapping[str, Any]) -> Config:
    """``config`` with other values for dotted keys; they must be valid for their fields."""
    assert changes.keys() <= flatten(config).keys()
    for key, value in changes.items():
        config = _with(config, key.split("."), value)
    return config


def _with(section: Any, path: Sequence[str], value: Any) -> Any:
    name, *rest = path
    return section.model_copy(update={name: _with(getattr(section, name), rest, value) if rest else value})


def unknown_sizes(needs: RunNeeds) -> Iterable[str]:
    """A line for each model whose size is not known, and what would make it known."""
    for key, why in needs.unknown.items():
        model = why.partition(":")[0]
        yield (
            f"{key}={why}; its memory is not in this plan. Name a config.json like its own: "
            f'resources.architectures={{"{model}": FILE}}'
        )
