"""One Ray instance on this machine for all cluster tests. It declares more CPUs than cores, as mere shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.cluster.start import open_cluster
from rlaif.config.schema import Config


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    with open_cluster(Config(resources={"cpus": 16, "object_store_gib": 0.5})) as address:
        yield address
