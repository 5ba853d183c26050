"""One Ray on this machine for all cluster tests, with more declared CPUs than there are cores: they are shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.cluster.start import started
from rlaif.config.schema import Config


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    with started(Config(resources={"cpus": 16, "object_store_gib": 0.5})) as address:
        yield address
