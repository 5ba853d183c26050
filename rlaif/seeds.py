"""Seeds: hashes of what is drawn, never of when, so that reruns, resumed runs and resubmitted rows draw the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

SEPARATOR = "\x1f"


def seed_from(*parts: object) -> int:
    """A 63-bit seed that depends only on ``parts``: the same on every machine and in every process."""
    return seed_of(hash_of(*parts))


def hash_of(*parts: object) -> _Hash:
    """The SHA-256 state after ``parts``; copy it to continue it in several ways."""
    return hashlib.sha256(SEPARATOR.join(map(str, parts)).encode())


def seed_of(state: _Hash) -> int:
    """The 63-bit seed of a hash state."""
    return int.from_bytes(state.digest()[:8], "big") >> 1
