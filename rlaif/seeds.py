"""Seeds: a hash of what is drawn, never of when, so that a rerun, a resumed run and a resubmitted row draw the same."""

from __future__ import annotations

import hashlib
from typing import Any

SEPARATOR = "\x1f"


def seed_from(*parts: object) -> int:
    """A 63-bit seed that depends on ``parts`` alone, the same on every machine and in every process."""
    return seed_of(hashed(*parts))


def hashed(*parts: object) -> Any:
    """The SHA-256 state after ``parts``; copy it to continue with several endings."""
    return hashlib.sha256(SEPARATOR.join(map(str, parts)).encode())


def seed_of(state: Any) -> int:
    """The 63-bit seed of a hash state."""
    return int.from_bytes(state.digest()[:8], "big") >> 1
