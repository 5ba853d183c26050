"""One cluster for all tests in this directory: labellers on host 2, everything else on host 1."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.machine import lacking
from tests.two_hosts.hosts import Cluster, two_hosts


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        lacking("right to make network namespaces (root)")
    others = {"generator_node": 1, "scorer_node": 1, "trainer_node": 1}
    with two_hosts({"CPU": 8, **others}, {"CPU": 0, "labeller_node": 2}) as hosts:
        yield hosts
