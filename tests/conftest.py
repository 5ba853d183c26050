"""Fixtures of the whole suite."""

from __future__ import annotations

import pytest

from rlaif.config import Miniature
from rlaif.constitution import load_constitution
from rlaif.miniature.make import MiniaturePaths, make


@pytest.fixture(scope="session")
def miniature() -> MiniaturePaths:
    """The default miniature: from the cache, or made now, which takes about a minute and a half on two cores."""
    return make(Miniature(), load_constitution("sixteen_principles"))
