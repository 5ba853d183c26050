"""The RL algorithms that a configuration may name, and what each demands of the rest of the run.

How each turns rewards into advantages is in ``rlaif.algorithms.advantage.ADVANTAGES``; a test holds the two tables to
the same names. This one imports no torch, so that a configuration can be checked without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    needs_value: bool  #: whether a value function is trained along with the policy
    min_group: int = 1  #: fewest rollouts of one prompt that it can learn from


#: As ``reinforcement.algorithm`` names them.
ALGORITHMS: Mapping[str, Algorithm] = {
    "ppo": Algorithm(needs_value=True),
    "rloo": Algorithm(needs_value=False, min_group=2),
    "grpo": Algorithm(needs_value=False, min_group=2),
}
