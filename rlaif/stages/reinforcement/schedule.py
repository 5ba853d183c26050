"""Which prompts each RL batch holds: a pure function of the seed, so that a resumed run has the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rlaif.config.schema import Reinforcement
from rlaif.data.duplicates import prompt_key
from rlaif.ids import group_id, refresh_id, sample_id
from rlaif.records import Axis, Prompt
from rlaif.seeds import seed_from
from rlaif.stages.fit_preference_model import splits_of
from rlaif.stages.run import Run
from rlaif.tasks.sampling import Draw


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Prompts of both axes and the order in which RL uses them: epoch after epoch, each in a new seeded order."""

    seed: int
    settings: Reinforcement
    red_team: tuple[Prompt, ...]
    helpful: tuple[Prompt, ...]
    compared: tuple[Prompt, ...]  #: red-team prompts that no held-out pair of the preference model is about

    @classmethod
    def of(cls, run: Run) -> Schedule:
        settings, refreshes = run.config.reinforcement, run.config.preference_model.refresh.every > 0
        red_team = tuple(run.prompts("red_team")) if settings.helpful_fraction < 1 or refreshes else ()
        splits = splits_of(run.config)
        return cls(
            seed=run.config.seed,
            settings=settings,
            red_team=red_team,
            helpful=tuple(run.prompts("helpful")) if settings.helpful_fraction > 0 else (),
            compared=tuple(prompt for prompt in red_team if splits.of(prompt_key(prompt.turns)) != "heldout"),
        )

    def batch(self, index: int) -> list[Draw]:
        """The draws of batch ``index``: ``batch_size`` of them, those of a group together."""
        return [
            Draw(id=sample_id(group, member), prompt=prompt, seed=seed_from(self.seed, "rollout", group, member))
            for group, prompt in self._groups(index)
            for member in range(self.settings.group_size)
        ]

    def comparisons(self, version: int, num: int) -> list[Prompt]:
        """The red-team prompts whose answers are compared for the refresh to ``version``, with ids of their own. The
        preference model is fitted on them, so none of them is held out."""
        positions = range((version - 1) * num, version * num)
        prompts = [self._at("comparisons", self.compared, position) for position in positions]
        return [replace(p, id=refresh_id(p.id, version, i)) for p, i in zip(prompts, positions, strict=True)]

    def _groups(self, index: int) -> Iterator[tuple[str, Prompt]]:
        num_groups = self.settings.batch_size // self.settings.group_size
        num_helpful = round(num_groups * self.settings.helpful_fraction)
        numbers: dict[Axis, int] = {"red_team": num_groups - num_helpful, "helpful": num_helpful}
        for axis, number in numbers.items():
            prompts = self.red_team if axis == "red_team" else self.helpful
            for position in range(index * number, (index + 1) * number):
                prompt = self._at(axis, prompts, position)
                yield group_id(prompt.id, axis, index, position), prompt

    def _at(self, walk: str, prompts: tuple[Prompt, ...], position: int) -> Prompt:
        """The prompt at ``position`` of a walk over all prompts, epoch after epoch."""
        epoch, index = divmod(position, len(prompts))
        return prompts[int(_order(self.seed, walk, epoch, len(prompts))[index])]


@lru_cache(maxsize=8)  # a batch may cross the ends of all three walks' epochs
def _order(seed: int, walk: str, epoch: int, num: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed_from(seed, "schedule", walk, epoch)).permutation(num)
