"""What changed between two constitutions, and which labels that outdates: targeted relabelling.

A label is made again when the principles drawn for it are others now, or when the text of one of them changed. Draws
are by rendezvous hashing (``constitution``), so other labels would come out the same, and stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rlaif.constitution.principles import Constitution, Principle

Value = str | float | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One field of a principle (``of``: its id) or one category's weight (``of``: the category) that changed."""

    of: str
    field: str
    old: Value
    new: Value


@dataclass(frozen=True, kw_only=True)
class ConstitutionDiff:
    """Empty exactly when both constitutions have one content hash. Principles are told apart by their ids.

    For labels, by principle id: ``joined`` and ``left`` the comparisons, ``reworded`` there, or ``reweighted`` for
    ``draw: weighted``, by their own or their category's weight.
    """

    added: tuple[Principle, ...]
    removed: tuple[Principle, ...]
    changed: tuple[Change, ...]
    category_weights: tuple[Change, ...]
    joined: tuple[str, ...]
    left: tuple[str, ...]
    reworded: tuple[str, ...]
    reweighted: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.category_weights)

    def outdates(self, principle_ids: Iterable[str], drawn_now_ids: Iterable[str]) -> bool:
        """Whether a label by ``principle_ids``, made under the old constitution, must be made again.

        ``drawn_now_ids``: what the new one draws for the same key. A label that asked no principle (identical answers)
        stays.
        """
        asked = set(principle_ids)
        return bool(asked) and (asked != set(drawn_now_ids) or not asked.isdisjoint((*self.reworded, *self.left)))


def diff(old: Constitution, new: Constitution) -> ConstitutionDiff:
    before, after = ({p.id: p for p in c.principles} for c in (old, new))
    asked, asks = ({p.id: p for p in c.for_comparison} for c in (old, new))
    both = [id for id in asked if id in asks]
    return ConstitutionDiff(
        added=tuple(p for id, p in after.items() if id not in before),
        removed=tuple(p for id, p in before.items() if id not in after),
        changed=tuple(c for id, p in before.items() if id in after for c in _changes(p, after[id])),
        category_weights=tuple(_weight_changes(old, new)),
        joined=tuple(id for id in asks if id not in asked),
        left=tuple(id for id in asked if id not in asks),
        reworded=tuple(id for id in both if asked[id].comparison != asks[id].comparison),
        reweighted=tuple(id for id in both if asked[id].weight != asks[id].weight),
    )


def _changes(old: Principle, new: Principle) -> Iterator[Change]:
    for field in Principle.model_fields:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield Change(of=old.id, field=field, old=before, new=after)


def _weight_changes(old: Constitution, new: Constitution) -> Iterator[Change]:
    for category in sorted({*old.category_weights, *new.category_weights}):
        before, after = (c.category_weights.get(category, 1.0) for c in (old, new))
        if before != after:
            yield Change(of=category, field="weight", old=before, new=after)
