"""A cluster in place of Ray: nodes and actors that die, hang, answer late and lose their node whenever they wait.

It stands behind ``actors.cluster.remote`` and hosts the actors' real classes on the loop of the driver. It knows of Ray
what the driver relies on: calls reach an actor in their order, and a caller learns of its death as an exception, late,
and before or after Ray knows of the death of its node. Whether Ray keeps to this is tested in ``tests/cluster``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError, TaskCancelledError

from actors.cluster import remote
from actors.cluster.whereabouts import Whereabouts
from tests.unit.actors.simulation.loop import SimulatedLoop

FAULTS = ("die", "hang", "late", "lose node", "cut off node", "lose message")


class Reference:
    """What ``remote`` returns: awaited as often as one likes; to stop waiting ends nothing."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._outcome = loop.create_future()
        self._outcome.add_done_callback(lambda outcome: outcome.cancelled() or outcome.exception())

    def __await__(self) -> Any:
        return asyncio.shield(self._outcome).__await__()

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error) if error else self._outcome.set_result(value)

    @property
    def settled(self) -> bool:
        return self._outcome.done()


class Call:
    """One call of a method of an actor. ``started``: in an actor, calls start in turn. ``given``: what has arrived of a
    stream. ``results``: one reference, several, or a stream of them."""

    def __init__(self, actor: SimulatedActor, method: str, args: tuple[Any, ...], num_returns: Any) -> None:
        self.method = method
        self.args = args
        self.work: asyncio.Task[None] | None = None
        self.ended = False
        self.given: list[Any] = []
        self.started = asyncio.Event()
        self.before: asyncio.Event | None = None
        self.actor = actor
        self._loop = actor.cluster.loop
        self._streams = num_returns == "streaming"
        self._last = 0.0
        self._references = [Reference(self._loop) for _ in range(1 if self._streams else num_returns)]
        self.results: Any = Stream(self, self._loop) if self._streams else self._references
        if num_returns == 1:
            (self.results,) = self._references

    def answer(self, result: Any) -> None:
        results = [result] if len(self._references) == 1 else result
        for reference, value in zip(self._references, results, strict=True):
            reference.settle(value)

    def give(self, items: list[Any]) -> None:
        if not self.ended:
            self.given += items
            self.results.put(items)

    def fail(self, error: BaseException) -> None:
        if self.ended:
            return
        self.ended = True
        if isinstance(error, RayActorError):
            self.actor.cluster.on_lost(self)
        if self._streams:
            self.results.end(error)
        for reference in self._references:
            reference.settle(error=error)

    def later(self, deliver: Callable[..., None], *args: Any) -> None:
        """Let a message arrive at the driver, after those before it."""
        self._last = max(self._last + 1e-9, self._loop.time() + self.actor.cluster.latency())
        self._loop.call_at(self._last, deliver, *args)


class Stream:
    """As Ray's generator of references: the error of its task comes as the last reference, or instead of it."""

    def __init__(self, call: Call, loop: SimulatedLoop) -> None:
        self._call = call
        self._loop = loop
        self._number = next(loop.numbers)
        self._items: list[Reference | None] = []
        self._news = asyncio.Event()

    def __hash__(self) -> int:
        return self._number

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Reference:
        while not self._items:
            self._news.clear()
            await self._news.wait()
        item = self._items[0]
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            raise item
        del self._items[0]
        return item

    def put(self, value: Any) -> None:
        reference = Reference(self._loop)
        reference.settle(value)
        self._items.append(reference)
        self._news.set()

    def end(self, error: BaseException | None) -> None:
        if error is None or self._loop.choices.random() < 0.5:
            self._items.append(error)
        else:
            reference = Reference(self._loop)
            reference.settle(error=error)
            self._items += [reference, None]
        self._news.set()

    def cancel(self) -> None:
        if self._call.work is not None:
            self._call.work.cancel()


class Method:
    def __init__(self, actor: SimulatedActor, name: str, num_returns: Any = 1) -> None:
        self._actor = actor
        self._name = name
        self._num_returns = num_returns

    def options(self, *, num_returns: Any) -> Method:
        return Method(self._actor, self._name, num_returns)

    def remote(self, *args: Any) -> Any:
        return self._actor.call(self._name, args, self._num_returns)


class Handle:
    def __init__(self, actor: SimulatedActor) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Method:
        return Method(self._actor, name)


class Node:
    """``alive``: whether it is; ``believed_alive``: what Ray says; ``reachable``: messages come and go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.believed_alive = True
        self.reachable = True


class SimulatedActor:
    """``alive``: it has a process. ``killed``: the driver ended it. ``lost_with_node``: how it died. ``sent``: all that
    it was called for."""

    def __init__(self, cluster: Cluster, kind: type, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.cluster = cluster
        self.name = options.get("name") or f"{kind.__name__}-{next(cluster.numbers)}"
        self.node = cluster.place(options.get("scheduling_strategy"))
        self.alive = True
        self.killed = False
        self.lost_with_node = False
        self.hung = asyncio.Event()
        self.deaf = False
        self.restarts = options.get("max_restarts", 0) != 0
        self.calls: dict[Call, None] = {}
        self.sent: list[Call] = []
        self._make = lambda: kind(*args)
        self.instance = self._make()
        self.instance.simulated = self
        self._last = 0.0
        self._started: asyncio.Event | None = None

    def call(self, method: str, args: tuple[Any, ...], num_returns: Any) -> Any:
        call = Call(self, method, args, num_returns)
        self.sent.append(call)
        loop = self.cluster.loop
        self._last = max(self._last + 1e-9, loop.time() + self.cluster.latency())
        loop.call_at(self._last, self._receive, call)
        return call.results

    def where(self) -> Whereabouts:
        return Whereabouts(host=self.node.name, node_id=self.node.name, pid=1, log_path="")

    async def wait(self, seconds: float | None = None) -> None:
        """As long as any process may need; here anything may happen to it. ``seconds``: of work."""
        cluster = self.cluster
        fault = cluster.fault(self)
        if fault is not None:
            getattr(self, fault.replace(" ", "_"))()
        if fault == "late":
            await asyncio.sleep(cluster.loop.choices.uniform(1, cluster.late_s))
        await asyncio.sleep(cluster.latency() if seconds is None else seconds)
        if self.hung.is_set():
            await asyncio.Event().wait()

    # ---------------------------------------------------------------------------------------------- its end
    def late(self) -> None:
        pass

    def lose_message(self) -> None:
        """The next call does not reach it."""
        self.deaf = True

    def hang(self) -> None:
        self.hung.set()

    def die(self) -> None:
        self.end(ActorDiedError(), self.cluster.lag(2))

    def lose_node(self) -> None:
        self.cluster.lose(self.node)

    def cut_off_node(self) -> None:
        self.cluster.cut_off(self.node)

    def end(self, error: BaseException, lag: float) -> None:
        """It has no process any more; its callers learn that after ``lag`` seconds."""
        if not self.alive:
            return
        self.alive = False
        self.cluster.on_end(self)
        if not self.node.reachable and not self.killed and self.node.believed_alive:
            error = ActorUnavailableError("no route", None)
        calls, self.calls = self.calls, {}
        for call in calls:
            if call.work is not None:
                call.work.cancel()
            self.cluster.loop.call_later(lag, call.fail, error)
        if self.restarts and not self.killed:
            self.cluster.loop.call_later(lag + self.cluster.lag(3), self._restart)

    def _restart(self) -> None:
        if not self.killed:
            self.node = self.cluster.place(None)
            self.instance = self._make()
            self.instance.simulated = self
            self.hung.clear()
            self._started = None
            self.alive = True

    # ------------------------------------------------------------------------------------------- its work
    def _receive(self, call: Call) -> None:
        if not self.alive:
            error = ActorUnavailableError("restarting", None) if self.restarts else ActorDiedError()
            if not self.node.reachable and not self.killed and self.node.believed_alive:
                error = ActorUnavailableError("no route", None)  # nobody can tell that it is dead
            self.cluster.loop.call_later(self.cluster.lag(1), call.fail, error)
            return
        if self.deaf:
            self.deaf = False
            self.cluster.loop.call_later(self.cluster.lag(3), call.fail, ActorUnavailableError("lost", None))
            return
        self.calls[call] = None
        call.before, self._started = self._started, call.started
        if not self.node.reachable:
            self.cluster.loop.call_later(self.cluster.lag(3), call.fail, ActorUnavailableError("no route", None))
            return
        call.work = self.cluster.spawn(self._work(call))

    async def _work(self, call: Call) -> None:
        try:
            if call.before is not None:
                await call.before.wait()
            await self.wait()
            args = [await arg if isinstance(arg, Reference) else arg for arg in call.args]
            result = getattr(self.instance, call.method)(*args)
            call.started.set()
            if hasattr(result, "__aiter__"):
                async with contextlib.aclosing(result):
                    async for item in result:
                        await self.wait()
                        self._reply(call, call.give, item)
                self._end(call, call.fail, None)
                return
            result = await result
            await self.wait()
            self._end(call, call.answer, result)
        except asyncio.CancelledError:
            if self.alive:
                self._end(call, call.fail, TaskCancelledError())
        except Exception as error:
            await self.wait()
            self._end(call, call.fail, RayTaskError(call.method, "", error))

    def _end(self, call: Call, deliver: Callable[..., None], outcome: Any) -> None:
        self.calls.pop(call, None)
        self._reply(call, deliver, outcome)

    def _reply(self, call: Call, deliver: Callable[..., None], outcome: Any) -> None:
        if self.node.reachable and self.alive:
            call.later(deliver, outcome)


class Cluster:
    """``rate``: of faults, each time that an actor waits; ``budget``: how many there are at most, of ``faults``.
    ``kinds``: what stands in for an actor's class. ``happened``: the faults so far."""

    def __init__(self, loop: SimulatedLoop, *, rate: float = 0.0, budget: int = 0) -> None:
        self.loop = loop
        self.rate = rate
        self.budget = budget
        self.faults: tuple[str, ...] = FAULTS
        self.immune: Callable[[SimulatedActor], bool] = lambda actor: False
        self.on_end: Callable[[SimulatedActor], None] = lambda actor: None
        self.on_lost: Callable[[Call], None] = lambda call: None
        self.kinds: dict[type, type] = {}
        self.late_s = 200.0
        self.rest_s = 600.0  # after which everything must have ended
        self.numbers = itertools.count()
        self.happened: Counter[str] = Counter()
        self.actors: list[SimulatedActor] = []
        self.groups: set[int] = set()
        self.home = Node("home")
        self.nodes = [self.home, *(Node(f"node-{next(self.numbers)}") for _ in range(2))]
        self.jitter = loop.choices.choice([0.0, 0.01, 0.5])
        self._work: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def in_place_of_ray(self) -> Iterator[None]:
        own = ("start_actor", "kill_actor", "reserve", "release", "within_group", "on_node", "run_on", "this_node")
        own += ("is_alive", "put", "cancel", "in_thread")
        with mock.patch.multiple(remote, **{name: getattr(self, name) for name in own}):
            yield

    # ------------------------------------------------------------------------------- actors.cluster.remote
    def start_actor(self, kind: type, *args: Any, **options: Any) -> Handle:
        actor = SimulatedActor(self, self.kinds.get(kind, kind), args, options)
        self.actors.append(actor)
        return Handle(actor)

    def kill_actor(self, handle: Handle) -> None:
        actor = handle._actor
        actor.killed = actor.killed or actor.alive or actor.restarts
        actor.end(ActorDiedError(), self.lag(2))

    def reserve(self, bundles: Any) -> int:
        self.groups.add(group := next(self.numbers))
        return group

    def release(self, group: int) -> None:
        self.groups.discard(group)

    def within_group(self, group: int) -> None:
        return None

    def on_node(self, node_id: str, *, or_any: bool = False) -> str:
        return node_id

    def run_on(self, node_id: str, function: Callable[..., Any], *args: Any) -> Reference:
        reference = Reference(self.loop)
        self.loop.call_later(self.latency(), reference.settle, "")
        return reference

    def this_node(self) -> str:
        return self.home.name

    def is_alive(self, node_id: str) -> bool:
        return any(node.name == node_id and node.believed_alive for node in self.nodes)

    def put(self, value: Any) -> Reference:
        reference = Reference(self.loop)
        reference.settle(value)
        return reference

    def cancel(self, stream: Stream) -> None:
        self.loop.call_later(self.latency(), stream.cancel)

    def in_thread(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """The work of the thread is a coroutine here; to stop waiting for it does not end it."""
        reference = Reference(self.loop)

        async def run() -> None:
            try:
                reference.settle(await work())
            except Exception as error:
                reference.settle(error=error)

        self.spawn(run())
        return asyncio.shield(reference._outcome)

    # ---------------------------------------------------------------------------------------------- fate
    def fault(self, actor: SimulatedActor) -> str | None:
        if not self.budget or self.loop.choices.random() >= self.rate or self.immune(actor) or not actor.alive:
            return None
        fault = self.loop.choices.choice(self.faults)
        if actor.node is self.home and "node" in fault:
            return None
        self.budget -= 1
        self.happened[fault] += 1
        return fault

    def lose(self, node: Node) -> None:
        """The machine is gone: Ray learns of its processes and of itself in any order, within seconds."""
        node.alive = False
        for actor in self._on(node):
            actor.lost_with_node = True
            actor.end(ActorDiedError(), self.lag(2))
        self._lost(node, self.lag(4))

    def cut_off(self, node: Node) -> None:
        """Its processes go on, but nothing reaches it or comes from it; Ray takes it for dead within a minute."""
        node.reachable = False
        for actor in self._on(node):
            actor.lost_with_node = True
            for call in tuple(actor.calls):
                self.loop.call_later(self.lag(3), call.fail, ActorUnavailableError("no route", None))
        self.loop.call_later(self.lag(60), self._lost, node, 0.0)

    def _lost(self, node: Node, lag: float) -> None:
        self.loop.call_later(lag, setattr, node, "believed_alive", False)
        for actor in self._on(node):
            self.loop.call_later(lag, actor.end, ActorDiedError(), 0.0)
        self.nodes.append(Node(f"node-{next(self.numbers)}"))

    def _on(self, node: Node) -> list[SimulatedActor]:
        return [actor for actor in self.actors if actor.node is node and actor.alive]

    def place(self, strategy: Any) -> Node:
        if isinstance(strategy, str):
            return next(node for node in self.nodes if node.name == strategy)
        others = [node for node in self.nodes[1:] if node.alive and node.reachable]
        return self.loop.choices.choice(others or [self.home])

    def latency(self) -> float:
        return self.loop.choices.random() * self.jitter

    def lag(self, seconds: float) -> float:
        return self.loop.choices.random() * seconds

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    # ------------------------------------------------------------------------------------------ what is left
    async def at_rest(self) -> list[str]:
        """What should not be there after everything was closed and messages under way have arrived."""
        self.rate = 0.0
        await asyncio.sleep(self.rest_s)
        alive = [f"{actor.name} lives after close" for actor in self.actors if actor.alive and not actor.killed]
        groups = [f"{len(self.groups)} placement groups leak"] * bool(self.groups)
        mine = {asyncio.current_task(), *self._work}
        waiting = [f"waits for ever: {task!r}" for task in asyncio.all_tasks() if task not in mine]
        for task in mine - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(1)
        assert math.isfinite(self.loop.time())
        return alive + groups + waiting
