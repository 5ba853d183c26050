"""One engine of a pool as its dispatcher sees it: the rows it holds and whether it may have more. Knows no Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.cluster.whereabouts import Whereabouts
    from actors.pool.remote_engine import RemoteEngine


class MemberState(StrEnum):
    SERVING = "serving"  #: takes rows
    ISOLATED = "isolated"  #: holds suspects, and gets nothing else until they are back
    DRAINING = "draining"  #: finishes the rows it holds, then leaves
    DEAD = "dead"  #: died or was killed


@dataclass(frozen=True, kw_only=True)
class Death:
    """Why an engine died. ``lost_with_node``: its whole node is gone, so none of its rows is to blame."""

    cause: str
    lost_with_node: bool


class Member:
    """An engine that a pool has put to work.

    Attributes:
        engine: the actor.
        state: whether it takes rows, and if not, why.
        holds: number of rows sent to it that have not come back.
        death: set when ``state`` is DEAD.
        silent: whether it did not answer, and its node may be the reason.
        counted: whether its death was (``Deaths.count``): each of its deliveries ends with it.
    """

    def __init__(self, engine: RemoteEngine) -> None:
        self.engine = engine
        self.state = MemberState.SERVING
        self.holds = 0
        self.death: Death | None = None
        self.silent = False
        self.counted = False
        self._last_return = time.monotonic()

    def __str__(self) -> str:
        return str(self.engine)

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def where(self) -> Whereabouts:
        return self.engine.where

    def load(self, rows: int) -> None:
        if self.holds == 0:
            self._last_return = time.monotonic()
        self.holds += rows

    def unload(self, rows: int) -> None:
        """Rows came back, or will not come back. The last suspect to leave ends the isolation."""
        self.holds -= rows
        self._last_return = time.monotonic()
        if self.state is MemberState.ISOLATED and self.holds == 0:
            self.state = MemberState.SERVING

    def idle_s(self) -> float:
        """Seconds since a row last came back; 0 when it holds none."""
        return time.monotonic() - self._last_return if self.holds else 0.0

    def isolate(self) -> None:
        """Reserve an empty engine for the suspects that it is about to get."""
        assert self.state is MemberState.SERVING and not self.holds, f"{self} is {self.state} and holds {self.holds}"
        self.state = MemberState.ISOLATED

    def drain(self) -> None:
        if self.state is not MemberState.DEAD:
            self.state = MemberState.DRAINING

    def die(self, cause: str, *, silent: bool = False, lost_with_node: bool = False) -> Death:
        """Several reports of one death are one death: the first cause counts."""
        earlier = self.death or Death(cause=cause, lost_with_node=False)
        self.death = Death(cause=earlier.cause, lost_with_node=earlier.lost_with_node or lost_with_node)
        self.state = MemberState.DEAD
        self.silent = self.silent or silent
        return self.death
