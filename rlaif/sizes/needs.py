"""What a run needs: of every role in every phase, of a card, of a node's host memory, of the disk, of Ray's store.

All sizes are bytes and follow from the configuration and the architectures of its models; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif.config.algorithms import ALGORITHMS
from rlaif.config.contradictions import flatten, pools_of, trainers_of
from rlaif.config.keys import POLICY_KEY, SCORED_KEY
from rlaif.config.schema import Config, PoolSettings
from rlaif.config.trainer import Trainer
from rlaif.engines.models import is_hub_name
from rlaif.errors import ModelError
from rlaif.sizes.architecture import WIDTH, Architecture, UnknownSizeError, read_architecture
from rlaif.sizes.engines import SCRIPTED_HOST, EngineMemory, engine_memory
from rlaif.sizes.machine import Machine
from rlaif.sizes.phases import Roles, sizes
from rlaif.sizes.training import GIBIBYTE, RankMemory, Trained, checkpoint_bytes, rank_memory, written_bytes

RolesOf = Mapping[str, Roles]  #: roles by the phase in which they live
#: Phases in which the generator serves the helpful-only model; in all others, the policy.
HELPFUL_ONLY_PHASES = ("revise", "answer")
#: Of one model's weights in Ray's store: those that newcomers catch up with, and those that are being sent.
STORED_VERSIONS = 2


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What one engine or rank of a role needs in a phase. ``engine`` or ``rank`` is None for the other kind."""

    phase: str
    role: str
    count: int
    gpus: float  #: of one tensor-parallel rank or trainer rank
    parts: int  #: tensor-parallel ranks
    engine: EngineMemory | None = None
    rank: RankMemory | None = None

    @property
    def device(self) -> int:
        """Bytes of one GPU that it takes, at most."""
        if self.gpus == 0:
            return 0
        if self.engine is not None:
            return max(self.engine.budget, sum(self.engine.parts.values()))
        return self.rank.on_device if self.rank else 0

    @property
    def host(self) -> int:
        """Bytes of host memory, all tensor-parallel ranks together."""
        if self.engine is not None:
            return self.engine.host * self.parts
        return self.rank.on_host if self.rank else SCRIPTED_HOST


@dataclass(frozen=True, kw_only=True)
class RunNeeds:
    """``unknown``: why the size of a model is not known, by its configuration key."""

    units: tuple[Unit, ...]
    architectures: Mapping[str, Architecture]
    unknown: Mapping[str, str]
    machine: Machine
    num_gpus: int
    store: int  #: Ray's object store, on a node
    checkpoint: int  #: one checkpoint of reinforcement
    num_checkpoints: int  #: at once, the one that is being written among them
    models: int  #: saved by the run
    fetched: int  #: models of the hub, in ``HF_HOME``

    @property
    def disk(self) -> int:
        """Of ``run_dir``; rows and logs come on top, a few KiB each."""
        return self.checkpoint * self.num_checkpoints + self.models

    @property
    def phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(unit.phase for unit in self.units))

    def of_phase(self, phase: str) -> tuple[Unit, ...]:
        return tuple(unit for unit in self.units if unit.phase == phase)

    def fullest_card(self, phase: str) -> tuple[int, tuple[Unit, ...]]:
        """The most bytes that units of one card can take together, and the units, each as often as it is there."""
        units = [unit for unit in self.of_phase(phase) if unit.gpus]
        alone = [(unit.device, (unit,)) for unit in units if unit.gpus >= 1]
        shares = [unit for unit in units if unit.gpus < 1]
        shared = _fullest([unit for unit in shares for _ in range(min(unit.count * unit.parts, 100 // _share(unit)))])
        return max([*alone, shared], key=lambda found: found[0])

    def fullest_node(self, phase: str) -> int:
        """The most host memory that units of one node can take together."""
        units = self.of_phase(phase)
        gpus = max(1, self.machine.gpus_per_node)
        if not self.num_gpus or all(unit.gpus == 0 for unit in units):
            return sum(unit.host * unit.count for unit in units)
        rest = [unit.host * unit.count for unit in units if unit.gpus == 0]
        left, total = float(gpus), sum(rest)
        for unit in sorted((unit for unit in units if unit.gpus), key=lambda u: -u.host / (u.gpus * u.parts)):
            size = unit.gpus * unit.parts
            whole = min(unit.count, int((left + 1e-6) / size)) if size <= gpus else 1
            total += whole * unit.host
            left -= min(left, whole * size)
        return total

    def held_gpus(self, phase: str) -> float:
        """GPUs that the roles of a phase hold, shares added up."""
        return sum(unit.gpus * unit.parts * unit.count for unit in self.of_phase(phase))


def _share(unit: Unit) -> int:
    """Of a GPU, in hundredths."""
    return max(1, round(unit.gpus * 100))


def _fullest(units: Sequence[Unit]) -> tuple[int, tuple[Unit, ...]]:
    """The heaviest choice of ``units`` whose shares of a GPU add up to at most one: a knapsack in hundredths."""
    best: dict[int, tuple[int, tuple[Unit, ...]]] = {0: (0, ())}
    for unit in units:
        share = _share(unit)
        for taken, (size, chosen) in list(best.items()):
            if taken + share <= 100 and best.get(taken + share, (-1, ()))[0] < size + unit.device:
                best[taken + share] = (size + unit.device, (*chosen, unit))
    return max(best.values(), key=lambda found: found[0])


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a run by configuration key, and why the sizes of others are not known."""

    architectures: Mapping[str, Architecture]
    unknown: Mapping[str, str]


def run_needs(config: Config, phases: RolesOf, machine: Machine, models: Models) -> RunNeeds:
    """What a configuration needs in ``phases``."""
    architectures = models.architectures
    units = tuple(
        unit for phase, roles in phases.items() for unit in _units(config, phase, roles, architectures, machine)
    )
    policy, scored = architectures.get(POLICY_KEY), architectures.get(SCORED_KEY)
    trains = "policy_trainer" in {role for roles in phases.values() for role in roles}
    trainer = config.policy_trainer
    reinforces = trains and policy is not None and "reinforce" in phases and trainer.engine == "deepspeed"
    learned = _trained_by_policy_trainer(config, "reinforce", policy, scored) if reinforces and policy else ()
    return RunNeeds(
        units=units,
        architectures=architectures,
        unknown=models.unknown,
        machine=machine,
        num_gpus=config.resources.gpus,
        store=_store(config, policy, scored) if reinforces else 0,
        checkpoint=sum(checkpoint_bytes(model.parameters) for model in learned),
        num_checkpoints=config.reinforcement.keep_checkpoints + 2,  # besides: the best one, and the next
        models=_saved_models(config, policy, scored) if trains else 0,
        fetched=_fetched(config, architectures),
    )


def read_models(config: Config, phases: RolesOf, *, is_here: bool = True) -> Models:
    """``is_here``: whether directories of models are on this machine. Raises ModelError, with a line for each model
    that cannot be used."""
    found: dict[str, Architecture] = {}
    unknown: dict[str, str] = {}
    mistakes: list[str] = []
    for key in _model_keys(config, phases):
        try:
            model = flatten(config)[key]
            if not is_here and Path(model).is_absolute():
                raise UnknownSizeError(f"{model}: is on another machine")
            found[key] = read_architecture(model, config.resources.architectures)
        except UnknownSizeError as error:
            unknown[key] = str(error)
        except ModelError as error:
            mistakes.append(f"{key}={error}; name a decoder that transformers and vLLM have")
    if mistakes:
        raise ModelError("\n".join(mistakes))
    return Models(architectures=found, unknown=unknown)


def _model_keys(config: Config, phases: RolesOf) -> list[str]:
    """Keys of the models that the phases need."""
    keys: dict[str, None] = {}
    for phase, roles in phases.items():
        for role in roles:
            if getattr(config, role).engine != "scripted":
                keys |= dict.fromkeys(_keys(config, phase, role))
    return list(keys)


def _keys(config: Config, phase: str, role: str) -> tuple[str, ...]:
    """Keys of the models that a role has in a phase."""
    if role == "generator":
        return ("generator.model",) if phase in HELPFUL_ONLY_PHASES else (POLICY_KEY,)
    if role == "labeller":
        return ("labeller.model",)
    if role == "policy_trainer":
        scored = (SCORED_KEY,) if phase == "reinforce" and config.reinforcement.reward == "preference_model" else ()
        return (POLICY_KEY, *scored)
    return (SCORED_KEY,)


def _units(
    config: Config,
    phase: str,
    roles: Roles,
    architectures: Mapping[str, Architecture],
    machine: Machine,
) -> Iterable[Unit]:
    """Roles whose models are known."""
    pools, trainers = pools_of(config), trainers_of(config)
    for role, count in sizes(config, roles).items():
        keys = _keys(config, phase, role)
        if getattr(config, role).engine == "scripted":
            yield Unit(phase=phase, role=role, count=count, gpus=0.0, parts=1)
        elif not all(key in architectures for key in keys):
            continue
        elif role in pools:
            yield _engine(pools[role], phase, role, count, architectures[keys[0]], machine)
        else:
            models = [architectures[key] for key in keys]
            yield _rank(config, trainers[role].model_copy(update={"ranks": count}), phase, role, models)


def _engine(settings: PoolSettings, phase: str, role: str, count: int, model: Architecture, machine: Machine) -> Unit:
    memory = engine_memory(model, settings, machine.card or 0, is_scorer=role == "scorer")
    return Unit(
        phase=phase,
        role=role,
        count=count,
        gpus=settings.gpus,
        parts=settings.tensor_parallel,
        engine=memory,
    )


def _rank(config: Config, trainer: Trainer, phase: str, role: str, models: Sequence[Architecture]) -> Unit:
    if role == "policy_trainer":
        trained = _trained_by_policy_trainer(config, phase, models[0], models[-1])
        frozen = [Trained(architecture=models[0])] if phase == "reinforce" else []
    else:
        trained, frozen = (Trained(architecture=models[0], is_scorer=True),), []
    checkpoint = 0
    if phase == "reinforce" and role == "policy_trainer":
        checkpoint = written_bytes(trained, trainer, config.reinforcement.checkpoint_in_background)
    memory = rank_memory(trained, frozen, trainer, trainer.micro_batch_tokens, checkpoint)
    return Unit(phase=phase, role=role, count=trainer.ranks, gpus=trainer.gpus, parts=1, rank=memory)


def _trained_by_policy_trainer(
    config: Config, phase: str, policy: Architecture, scored: Architecture | None
) -> tuple[Trained, ...]:
    """The policy, and in reinforcement the value function, which begins as the preference model."""
    if phase != "reinforce" or not ALGORITHMS[config.reinforcement.algorithm].needs_value:
        return (Trained(architecture=policy),)
    value = policy if scored is None or config.reinforcement.reward == "direct" else scored
    return (Trained(architecture=policy), Trained(architecture=value, is_scorer=True, is_value=True))


def _store(config: Config, policy: Architecture | None, scored: Architecture | None) -> int:
    """Weights in the models' own dtype; those of a refreshed preference model as well."""
    models = [(policy.parameters if policy else 0) * WIDTH[config.policy_trainer.dtype]]
    if config.preference_model.refresh.every and scored is not None:
        models.append(scored.scorer_parameters * WIDTH[config.preference_trainer.dtype])
    return STORED_VERSIONS * sum(models)


def _saved_models(config: Config, policy: Architecture | None, scored: Architecture | None) -> int:
    """SL-CAI, RL-CAI; the preference model before and after its fit, twice with a test split, and when it is refreshed
    the last two."""
    saved = 2 * (policy.parameters if policy else 0) * WIDTH[config.policy_trainer.dtype]
    if scored is None or config.reinforcement.reward == "direct":
        return saved
    count = (4 if config.preference_model.test_split else 2) + (3 if config.preference_model.refresh.every else 0)
    return saved + count * scored.scorer_parameters * WIDTH[config.preference_trainer.dtype]


def _fetched(config: Config, architectures: Mapping[str, Architecture]) -> int:
    """In bfloat16, as the hub has most models."""
    flat = flatten(config)
    named = {flat[key]: model for key, model in architectures.items() if is_hub_name(flat[key])}
    return sum(2 * model.parameters for model in named.values())


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIBIBYTE:.1f} GiB"
