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
from rlaif.stages.kept_prompts import KeptPrompts
from rlaif.stages.run import Run
from rlaif.tasks.sampling import Draw


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Prompts of both axes and the order in which RL uses them: epoch after epoch, each in a new seeded order."""

    seed: int
    settings: Reinforcement
    red_team: KeptPrompts
    helpful: KeptPrompts
    compared: npt.NDArray[np.int32]  #: the red-team prompts that no held-out pair of the preference model is about

    @classmethod
    def of(cls, run: Run) -> Schedule:
        settings, refreshes = run.config.reinforcement, run.config.preference_model.refresh.every > 0
        needed: dict[Axis, bool] = {
            "red_team": settings.helpful_fraction < 1 or refreshes,
            "helpful": settings.helpful_fraction > 0,
        }
        kept = {a: KeptPrompts(run.prompts(a) if needed[a] else (), run.run_dir.path) for a in needed}
        splits = splits_of(run.config)
        return cls(
            seed=run.config.seed,
            settings=settings,
            red_team=kept["red_team"],
            helpful=kept["helpful"],
            compared=np.fromiter(
                (i for i, p in enumerate(kept["red_team"]) if splits.of(prompt_key(p.turns)) != "heldout"), np.int32
            ),
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
        places = [self._place("comparisons", len(self.compared), position) for position in positions]
        prompts = [self.red_team[int(self.compared[place])] for place in places]
        return [replace(p, id=refresh_id(p.id, version, i)) for p, i in zip(prompts, positions, strict=True)]

    def _groups(self, index: int) -> Iterator[tuple[str, Prompt]]:
        num_groups = self.settings.batch_size // self.settings.group_size
        num_helpful = round(num_groups * self.settings.helpful_fraction)
        numbers: dict[Axis, int] = {"red_team": num_groups - num_helpful, "helpful": num_helpful}
        for axis, number in numbers.items():
            prompts = self.red_team if axis == "red_team" else self.helpful
            for position in range(index * number, (index + 1) * number):
                prompt = prompts[self._place(axis, len(prompts), position)]
                yield group_id(prompt.id, axis, index, position), prompt

    def _place(self, walk: str, num: int, position: int) -> int:
        """Which of ``num`` prompts is at ``position`` of a walk over all of them, epoch after epoch."""
        epoch, index = divmod(position, num)
        return int(_order(self.seed, walk, epoch, num)[index])


@lru_cache(maxsize=8)  # a batch may cross the ends of all three walks' epochs
def _order(seed: int, walk: str, epoch: int, num: int) -> npt.NDArray[np.int32]:
    """int32, because eight of them stay in memory."""
    return np.random.default_rng(seed_from(seed, "schedule", walk, epoch)).permutation(num).astype(np.int32)
