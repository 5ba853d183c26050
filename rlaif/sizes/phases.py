"""The phases of the story: which roles live at the same time, and how many engines and ranks each has then.

A stage has one phase, or several one after another. The pools of a phase that has ended close before the next begins,
so each phase has the whole machine: a pool with ``engines: auto`` takes what the other roles of its phase leave, and a
trainer that is alone in its phase may have more ranks (``fit_ranks``) than in reinforcement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rlaif.config.contradictions import pools_of, trainers_of
from rlaif.config.schema import Config, PoolSettings
from rlaif.config.trainer import Trainer

Roles = tuple[str, ...]
ROUNDING = 1e-6  #: shares of a CPU or GPU add up inexactly
#: A role that is larger grows by more than one unit at a time, so that its size does not count the steps.
MAX_GROWN_ONE_BY_ONE = 256


def has_preference_model(config: Config) -> bool:
    """A direct reward needs none."""
    return config.reinforcement.reward == "preference_model"


def _reinforcement_roles(config: Config) -> Roles:
    rewards = "scorer" if has_preference_model(config) else "labeller"
    refreshing = ("labeller", "preference_trainer") if config.preference_model.refresh.every else ()
    return tuple(dict.fromkeys(("generator", rewards, "policy_trainer", *refreshing)))


def _scoring_roles(config: Config) -> Roles:
    return ("scorer",) if has_preference_model(config) and config.preference_model.test_split else ()


def has_suites(config: Config) -> bool:
    return any(source is not None for _, source in config.evaluation.suites)


def judges_suites(config: Config) -> bool:
    return config.evaluation.judged and (has_suites(config) or config.evaluation.answers is not None)


def _judging_roles(config: Config) -> Roles:
    return ("labeller",) if judges_suites(config) or config.evaluation.matches else ()


def _always(*roles: str) -> Callable[[Config], Roles]:
    return lambda config: roles


#: Roles by phase, in the order of the story; none where a configuration does not have the phase.
PHASES: Mapping[str, Callable[[Config], Roles]] = {
    "revise": _always("generator"),
    "supervise": _always("policy_trainer"),
    "compare": _always("generator"),
    "label": _always("labeller"),
    "fit_preference_model": _always("preference_trainer"),
    "reinforce": _reinforcement_roles,
    "evaluate": _always("generator"),
    "score": _scoring_roles,
    "judge": _judging_roles,
    "answer": _always("generator"),  # of `rlaif evaluate`, outside the story
}


def engine_resources(settings: PoolSettings) -> dict[str, float]:
    """Resources of one engine by Ray's names, all tensor-parallel ranks together."""
    return {"CPU": settings.cpus, "GPU": settings.gpus * settings.tensor_parallel, **settings.placement}


def rank_resources(trainer: Trainer) -> dict[str, float]:
    """Resources of one trainer rank by Ray's names."""
    return {"CPU": trainer.cpus, "GPU": trainer.gpus, **trainer.placement}


def declared_resources(config: Config) -> dict[str, float]:
    """What the configuration says is available, by Ray's resource names."""
    return {"CPU": config.resources.cpus, "GPU": config.resources.gpus, **config.resources.custom}


def sizes(config: Config, roles: Roles) -> dict[str, int]:
    """Number of engines or ranks of each of ``roles``, which live at the same time.

    Those that may grow do so in proportion to the size that they have at least. What is too large for ``resources`` at
    that size keeps it: saying so is up to the plan.
    """
    ranges = {role: _range(config, role, alone=len(roles) == 1) for role in roles}
    room = _Room(declared_resources(config), cards={1.0: config.resources.gpus})
    counts = {role: one.least for role, one in ranges.items()}
    for one in sorted(ranges.values(), key=lambda one: -one.gpus):
        room.take(one, one.least)
    growing = set(roles)
    while growing:
        role = min(growing, key=lambda role: (counts[role] / ranges[role].least, roles.index(role)))
        wanted = min(ranges[role].most - counts[role], 1 + counts[role] // MAX_GROWN_ONE_BY_ONE)
        counts[role] += (taken := room.take(ranges[role], wanted))
        if not taken:
            growing.remove(role)
    return counts


@dataclass(frozen=True, kw_only=True)
class _Range:
    """How many units a role has at least and at most; what each needs, ``gpus`` on one card each of ``parts``."""

    least: int
    most: int
    each: Mapping[str, float]
    gpus: float
    parts: int = 1


def _range(config: Config, role: str, *, alone: bool) -> _Range:
    pools = pools_of(config)
    if role in pools:
        pool = pools[role]
        most = pool.max if pool.engines == "auto" else pool.min
        parts = pool.tensor_parallel
        return _Range(least=pool.min, most=most, each=engine_resources(pool), gpus=pool.gpus, parts=parts)
    trainer = trainers_of(config)[role]
    least = most = trainer.ranks
    if alone and isinstance(trainer.fit_ranks, int):
        least = most = trainer.fit_ranks
    elif alone and trainer.fit_ranks == "auto":
        least, most = 1, _smallest_batch(config, role)
    return _Range(least=least, most=most, each=rank_resources(trainer), gpus=trainer.gpus)


def _smallest_batch(config: Config, role: str) -> int:
    """Rows of an optimizer step of the fits of a trainer: more ranks would have nothing to do."""
    if role == "policy_trainer":
        return config.supervision.optimization.batch_size
    settings = config.preference_model
    fits = [settings.fit, *([settings.pretraining] if config.data.votes is not None else [])]
    return min(fit.batch_size for fit in fits)


@dataclass
class _Room:
    """What is free. ``cards``: how many GPUs have the same share left; shares of one unit lie on one card."""

    resources: dict[str, float]
    cards: dict[float, int] = field(default_factory=dict)

    def take(self, one: _Range, num: int) -> int:
        """Take what ``num`` units need, or as many as there is room for; returns how many."""
        for name, amount in one.each.items():
            free = self.resources.get(name, 0.0) + ROUNDING
            if amount * num > free:
                num = max(0, int(free / amount))
        num = self._take_cards(one, num)
        if num:
            for name, amount in one.each.items():
                self.resources[name] -= amount * num
        return num

    def _take_cards(self, one: _Range, num: int) -> int:
        """As many units as the cards hold, up to ``num``; the fullest cards that have room come first."""
        if not (one.gpus and num):
            return num
        share, spread = min(1.0, one.gpus), one.parts * max(1, round(one.gpus))
        placed = 0
        for left in sorted(left for left in self.cards if left + ROUNDING >= share):
            # one, where a unit is spread over several: its share is a whole card
            on_each = num if share * num <= left + ROUNDING else int((left + ROUNDING) / share)
            units = min(num - placed, self.cards[left] * on_each // spread)
            placed += units
            self._fill(left, share, on_each, units * spread)
        return placed

    def _fill(self, left: float, share: float, on_each: int, num: int) -> None:
        """Put ``num`` shares on cards with ``left``, ``on_each`` on every card but the last."""
        for on_one, num_cards in ((on_each, num // on_each), (num % on_each, 1)):
            if on_one and num_cards:
                self.cards[left] -= num_cards
                rest = left - on_one * share
                self.cards[rest] = self.cards.get(rest, 0) + num_cards
