"""Which pairs a preference model is fitted on: decided by their prompts alone, so that no prompt is in two splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlaif.seeds import seed_from

SplitName = Literal["fit", "test_fit", "heldout"]  #: ``test_fit`` is for the test preference model


@dataclass(frozen=True, kw_only=True)
class Splits:
    """``test``: whether the pairs that are fitted on are halved. What is held out is the same with and without."""

    seed: int
    heldout_fraction: float
    test: bool

    @property
    def names(self) -> tuple[SplitName, ...]:
        return ("fit", "test_fit", "heldout") if self.test else ("fit", "heldout")

    def of(self, prompt: str) -> SplitName:
        """Where the pairs of a prompt go. ``prompt``: its key (``data.duplicates``), so near-duplicates go together."""
        if seed_from(self.seed, "heldout", prompt) / 2**63 < self.heldout_fraction:
            return "heldout"
        if self.test and seed_from(self.seed, "test_split", prompt) % 2:
            return "test_fit"
        return "fit"
