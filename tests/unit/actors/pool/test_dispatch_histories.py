"""A dispatcher through histories in which anything may happen: its rules hold, and no row is lost or sent twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.pool.dispatch import SUSPECT_SHARE
from actors.pool.member import Member, MemberState
from actors.pool.shipment import AnyDone, Delivery, PoolCall
from rlaif.interfaces import Failure
from tests.unit.actors.pool.engines import back, dispatch_of, engines

FIRST_ROWS = 1000  #: the rows of call number i are i * FIRST_ROWS and on


class Source:
    """The rows of one call, which says how many are left or does not; ``read``: what was read of all of them."""

    def __init__(self, rows: range, read: list[int], says_length: bool) -> None:
        self._rows = iter(rows)
        self._read = read
        self._says_length = says_length

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> int:
        self._read.append(next(self._rows))
        return self._read[-1]

    def __length_hint__(self) -> int:
        return self._rows.__length_hint__() if self._says_length else NotImplemented


@dataclass
class Story:
    """A pool at work, without actors: what is under way, and what has become of each row."""

    max_in_flight: int
    chunk_rows: int
    rows: list[range]
    says_length: bool
    under_way: list[Delivery] = field(default_factory=list)
    deaths: Counter[int] = field(default_factory=Counter)  #: of engines that held the row, those of nodes left out
    condemned: set[int] = field(default_factory=set)
    back: list[AnyDone] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatch = dispatch_of(self.max_in_flight, self.chunk_rows)
        self.calls = [self.dispatch.open("task", Source(rows, self.read, self.says_length)) for rows in self.rows]

    def send(self) -> None:
        """Dispatch, and hold every delivery to the rules."""
        out = [call.out for call in self.calls]
        before = self.going()
        for delivery in self.dispatch.deliveries(self.members):
            self.check(delivery, before)
            self.under_way.append(delivery)
            before = self.going()
        limit = 2 * self.max_in_flight * max(1, len(self.members))
        for earlier, call in zip(out, self.calls, strict=True):
            assert call.out <= max(earlier, limit + self.chunk - 1), "back-pressure: the consumer does not keep up"
        self.account()

    def finish(self, delivery: Delivery, places: list[int], failed: bool) -> None:
        unfinished = delivery.unfinished
        failure = Failure(cause="ValueError", fault="outside") if failed else None
        results = [(place, None if failed else unfinished[place], failure) for place in places]
        assert self.dispatch.take_back(delivery, results) is not failed
        if not unfinished:
            self.under_way.remove(delivery)
        self.leave()

    def die(self, member: Member, with_node: bool) -> None:
        """As ``EnginePool`` learns of it: the first report takes the engine out, then each delivery ends."""
        self.members.remove(member)
        for delivery in [delivery for delivery in self.under_way if delivery.member is member]:
            self.under_way.remove(delivery)
            delivery.stop()
            rows = list(delivery.unfinished.values())
            suspects = len(self.suspects())
            self.dispatch.recover(delivery, member.die("exit 7", lost_with_node=with_node))
            if with_node:
                assert len(self.suspects()) == suspects, "a lost node makes suspects"
            else:
                self.deaths.update(rows)
                self.condemned.update(rows if delivery.shipment.strikes and len(rows) == 1 else ())

    def leave(self) -> None:
        """Engines that drain leave when they are empty, as ``Roster`` lets them."""
        self.members = [m for m in self.members if m.holds or m.state is not MemberState.DRAINING]

    def hire(self) -> None:
        self.members += engines(1)

    def abandon(self, call: PoolCall) -> None:
        if not call.abandoned:
            self.dispatch.close(call)
            for delivery in [delivery for delivery in self.under_way if delivery.call is call]:
                self.under_way.remove(delivery)
                delivery.stop()
            self.leave()

    async def consume(self, call: PoolCall) -> bool:
        """Take what is back; whether there may be more."""
        done = None if call.abandoned else await back(call)
        self.back += done or []
        return done is not None

    @property
    def chunk(self) -> int:
        return min(self.chunk_rows, max(1, self.max_in_flight // 2))

    def suspects(self) -> list[int]:
        return [row for shipment in self.dispatch._suspects for row in shipment.rows]

    def going(self) -> list[int]:
        """The rows in engines."""
        return [row for delivery in self.under_way for row in delivery.unfinished.values()]

    def check(self, delivery: Delivery, in_engines: list[int]) -> None:
        member, shipment = delivery.member, delivery.shipment
        assert member.holds <= self.max_in_flight, "max_in_flight is exceeded"
        assert set(shipment.rows).isdisjoint(in_engines), "a row is in two engines"
        if shipment.strikes:
            assert member.state is MemberState.ISOLATED and member.holds == len(shipment.rows), (
                "suspects share an engine"
            )
            assert len(shipment.rows) <= (max(1, self.max_in_flight // SUSPECT_SHARE) if shipment.strikes == 1 else 1)
        else:
            assert member.state is MemberState.SERVING and len(shipment.rows) <= self.chunk
            neighbours = [other.shipment for other in self.under_way if other.member is member]
            assert not any(neighbour.strikes for neighbour in neighbours), "suspects share an engine"
            held = member.holds - len(shipment.rows)
            serving = [m.holds for m in self.members if m.state is MemberState.SERVING and m is not member]
            isolated = any(m.state is MemberState.ISOLATED for m in self.members)
            reserved = bool(self.dispatch._suspects) and not isolated
            assert sum(holds < held for holds in serving) <= reserved, "another engine held fewer rows"
            assert serving or not reserved, "no engine is left for the suspects"

    def account(self) -> None:
        """Every row that was read is in one place, and engines are believed to hold what they hold."""
        for member in self.members:
            inside = [delivery for delivery in self.under_way if delivery.member is member]
            assert member.holds == sum(len(delivery.unfinished) for delivery in inside)
            assert member.state is not MemberState.ISOLATED or len(inside) == 1
        places = [*self.going(), *self.suspects(), *(done.row for done in self.back)]
        for call in self.calls:
            places += [*call._returned, *(done.row for done in call._back)]
        assert self.of_consumers(places) == self.of_consumers(self.read), "a row is lost, or in two places"

    def of_consumers(self, rows: Iterable[int]) -> list[int]:
        """Without the rows of abandoned calls, which no consumer waits for."""
        return sorted(row for row in rows if not self.calls[row // FIRST_ROWS].abandoned)


async def live(story: Story, killers: set[int], data: st.DataObject) -> None:
    """Anything happens, in any order, until it is enough."""
    for _ in range(data.draw(st.integers(0, 40), label="events")):
        story.send()
        event = data.draw(st.sampled_from(["finish", "finish", "consume", "die", "hang", "hire", "drain", "abandon"]))
        if event == "finish" and story.under_way:
            delivery = data.draw(st.sampled_from(story.under_way))
            places = data.draw(st.lists(st.sampled_from(list(delivery.unfinished)), min_size=1, unique=True))
            story.finish(delivery, places, failed=data.draw(st.booleans()))
        elif event == "hire":
            story.hire()
        elif event == "consume":
            await story.consume(data.draw(st.sampled_from(story.calls)))
        elif event == "abandon" and data.draw(st.integers(0, 3)) == 0:
            story.abandon(data.draw(st.sampled_from(story.calls)))
        elif event in ("die", "hang", "drain") and story.members:
            member = data.draw(st.sampled_from(story.members))
            if event == "die":
                story.die(member, with_node=data.draw(st.booleans()))
            elif event == "drain":
                member.drain()
                story.leave()
            elif member.holds:
                member.die("hung")  # it is dead, and its streams have yet to report that
    await come_to_an_end(story, killers)


async def come_to_an_end(story: Story, killers: set[int]) -> None:
    """From now on engines die of ``killers`` only, and everything else is done."""
    rounds = 0
    while any([await story.consume(call) for call in story.calls]):
        rounds += 1
        assert rounds < 1_000, "rows wait for ever"
        if not any(member.state is MemberState.SERVING for member in story.members):
            story.hire()
        story.send()
        for member in list(story.members):
            inside = [delivery for delivery in story.under_way if delivery.member is member]
            if member.state is MemberState.DEAD or any(killers & {*d.unfinished.values()} for d in inside):
                story.die(member, with_node=False)
            else:
                for delivery in inside:
                    story.finish(delivery, list(delivery.unfinished), failed=False)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_happens_each_row_comes_back_once_and_only_its_own_deaths_condemn_it(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=3), label="rows of each call")
    story = Story(
        max_in_flight=data.draw(st.integers(1, 24), label="max_in_flight"),
        chunk_rows=data.draw(st.integers(1, 12), label="chunk_rows"),
        rows=[range(FIRST_ROWS * call, FIRST_ROWS * call + count) for call, count in enumerate(counts)],
        says_length=data.draw(st.booleans(), label="sources say their length"),
    )
    for _ in range(data.draw(st.integers(1, 4), label="engines")):
        story.hire()
    everything = [row for rows in story.rows for row in rows]
    killers = data.draw(st.sets(st.sampled_from(everything or [0]), max_size=3), label="killers")
    asyncio.run(live(story, killers, data))
    assert story.of_consumers(done.row for done in story.back) == story.of_consumers(everything)
    killed = {done.row for done in story.back if done.failure and done.failure.fault == "row"}
    assert story.of_consumers(killed) == story.of_consumers(story.condemned)
    assert all(story.deaths[row] >= 2 for row in killed), "condemned for one death"
