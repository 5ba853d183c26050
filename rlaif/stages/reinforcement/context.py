"""What the loops of the policy and those of the preference model share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rlaif.interfaces import Pool
from rlaif.stages.reinforcement.admission import Admission
from rlaif.stages.reinforcement.checkpoints import PreferenceCheckpoints
from rlaif.stages.reinforcement.preference_versions import PreferenceVersion
from rlaif.stages.reinforcement.schedule import Schedule
from rlaif.stages.reinforcement.waits import Waits
from rlaif.stages.run import Run


@dataclass(frozen=True, kw_only=True)
class LoopContext:
    """``refreshed``: preference models on their way from ``refit`` to ``score``."""

    run: Run
    generator: Pool
    schedule: Schedule
    admission: Admission
    waits: Waits
    preference_checkpoints: PreferenceCheckpoints
    refreshed: asyncio.Queue[PreferenceVersion] = field(default_factory=lambda: asyncio.Queue(1))
