"""How the driver starts, reaches and ends what runs in other processes: the one place where pools, trainers and the
control actor meet Ray, so that ``tests/unit/actors/simulation`` can put a simulated cluster in its place.

A handle is Ray's: ``handle.method.remote(...)`` returns a reference at once, which is awaited for what the method
returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

_T = TypeVar("_T")


def start_actor(kind: type, *args: Any, **options: Any) -> Any:
    """A handle of a new actor; what cannot be started is found when it is asked something."""
    return ray.remote(kind).options(**options).remote(*args)


def kill_actor(handle: Any) -> None:
    """End the actor's process, if it has one. Returns at once."""
    ray.kill(handle)


def reserve(bundles: Sequence[Mapping[str, float]]) -> Any:
    """A placement group for parts that belong together; it stays until it is released."""
    return placement_group([dict(bundle) for bundle in bundles], strategy="PACK")


def release(group: Any) -> None:
    remove_placement_group(group)


def within_group(group: Any) -> Any:
    """The scheduling strategy of an actor in the first bundle of ``group``, whose own actors get the others."""
    return PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )


def on_node(node_id: str, *, or_any: bool = False) -> Any:
    """The scheduling strategy of what runs on one node, or if ``or_any`` on another when that is lost."""
    return NodeAffinitySchedulingStrategy(node_id, soft=or_any)


def run_on(node_id: str, function: Callable[..., Any], *args: Any) -> Any:
    """A reference to what ``function`` returns on a node."""
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=on_node(node_id)).remote(*args)


def this_node() -> str:
    return ray.get_runtime_context().get_node_id()


def is_alive(node_id: str) -> bool:
    """What Ray knows now: a node that has just been lost still counts as alive for a while."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def put(value: Any) -> Any:
    """A reference to ``value`` in the object store, owned by this process."""
    return ray.put(value)


def cancel(stream: Any) -> None:
    """End the task that a stream of results comes from."""
    ray.cancel(stream)


def in_thread(work: Callable[[], _T]) -> asyncio.Future[_T]:
    """What ``work`` returns or raises in a thread of its own.

    ``asyncio.to_thread`` would hold up the end of this process until ``work`` ends, whatever it waits for.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(settle_future: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():  # cancelled by a caller that waits no longer
            settle_future(outcome)

    def run() -> None:
        try:
            outcome = future.set_result, work()
        except BaseException as error:
            outcome = future.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any longer
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return future
