"""A Ray cluster of three nodes with eight GPUs each, none of which exist: Ray hands them out all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.cluster.start import _loopback_only, open_cluster
from rlaif.config.schema import Config

NODES, GPUS = 3, 8
HOST = "127.0.0.1"


def add_node(cluster: Cluster, number: int) -> object:
    """A host whose resource ``host_N`` pins an actor to it."""
    resources = {f"host_{number}": 1000.0}
    return cluster.add_node(num_cpus=64, num_gpus=GPUS, resources=resources, node_ip_address=HOST)


@pytest.fixture(scope="session")
def hosts() -> Iterator[Cluster]:
    with _loopback_only():  # as for the cluster of a single machine; drivers, too, must know it by this address
        yield from _cluster()


def _cluster() -> Iterator[Cluster]:
    head = {"num_cpus": 0, "num_gpus": 0, "node_ip_address": HOST, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": 200 * 2**20})
    for number in range(NODES):
        add_node(cluster, number)
    yield cluster
    cluster.shutdown()


@contextmanager
def joined_by(hosts: Cluster) -> Iterator[None]:
    """Join the cluster as a run does."""
    hosts.wait_for_nodes()
    with open_cluster(Config(resources={"address": hosts.address})):
        yield


@pytest.fixture
def joined(hosts: Cluster) -> Iterator[Cluster]:
    with joined_by(hosts):
        yield hosts


@pytest.fixture
def free_gpus(joined: Cluster) -> Callable[[], float]:
    return lambda: ray.available_resources().get("GPU", 0.0)
