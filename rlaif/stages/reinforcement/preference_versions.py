"""Which version of the preference model scores which batch: a function of counts, never of time.

Refresh r (1, 2, ...) begins when ``r * every`` batches have been learned: it labels answers of that policy. Its model
scores from batch ``r * every + max_lag`` on; until then RL uses the older one, and at that batch it waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlaif.config.schema import Refresh, Reinforcement
from rlaif.interfaces import VersionedWeights


@dataclass(frozen=True, kw_only=True)
class PreferenceVersion:
    """A preference model ready to be served. ``weights`` is what a pool takes, None for what its engines were opened
    with; ``offset`` is subtracted from its scores, so that their mean on the frozen probes is that of version 0."""

    version: int
    weights: VersionedWeights | None
    offset: float


def version_for(refresh: Refresh, batch: int) -> int:
    """The version that scores ``batch`` (0, 1, ...)."""
    return max(0, (batch - refresh.max_lag) // refresh.every) if refresh.every else 0


def starts_at(refresh: Refresh, version: int) -> int:
    """Batches that must have been learned before the refresh to ``version`` begins."""
    return version * refresh.every


def num_refreshes(settings: Reinforcement, refresh: Refresh) -> int:
    """Refreshes of a run: those whose model scores at least one batch."""
    return version_for(refresh, settings.batches - 1)
