"""What changed between two constitutions.

A label is made again when other principles are drawn for it now, or when the text of one of them changed
(``tasks.labelling``). Draws are by rendezvous hashing (``principles``), so every other label would come out the same,
and is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlaif.constitution.principles import Constitution, Principle

Value = str | float | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One field of a principle (``of``: its id), or the weight of a category or priority (``of``), that changed."""

    of: str
    field: str
    old: Value
    new: Value


@dataclass(frozen=True, kw_only=True)
class ConstitutionDiff:
    """Empty exactly when both constitutions have the same content hash. Principles are identified by their ids.

    For labels, by principle id: those that ``joined`` or ``left`` the principles with a comparison, those that were
    ``reworded``; for ``draw: weighted``, those ``reweighted`` by their own weight or that of their category or
    priority; and, for ``conflicts: priority``, those of another priority (``moved``).
    """

    added: tuple[Principle, ...]
    removed: tuple[Principle, ...]
    changed: tuple[Change, ...]
    category_weights: tuple[Change, ...]
    priority_weights: tuple[Change, ...]
    joined: tuple[str, ...]
    left: tuple[str, ...]
    reworded: tuple[str, ...]
    reweighted: tuple[str, ...]
    moved: tuple[str, ...]

    @property
    def empty(self) -> bool:
        weights = self.category_weights or self.priority_weights
        return not (self.added or self.removed or self.changed or weights)


def diff(old: Constitution, new: Constitution) -> ConstitutionDiff:
    """What changed from ``old`` to ``new``."""
    old_by_id, new_by_id = _by_id(old.principles), _by_id(new.principles)
    old_labelling, new_labelling = _by_id(old.for_comparison), _by_id(new.for_comparison)
    in_both = [(principle, new_labelling[id]) for id, principle in old_labelling.items() if id in new_labelling]
    return ConstitutionDiff(
        added=tuple(p for id, p in new_by_id.items() if id not in old_by_id),
        removed=tuple(p for id, p in old_by_id.items() if id not in new_by_id),
        changed=tuple(c for id, p in old_by_id.items() if id in new_by_id for c in _changes(p, new_by_id[id])),
        category_weights=tuple(_weight_changes(old.category_weights, new.category_weights)),
        priority_weights=tuple(_weight_changes(old.priority_weights, new.priority_weights)),
        joined=tuple(id for id in new_labelling if id not in old_labelling),
        left=tuple(id for id in old_labelling if id not in new_labelling),
        reworded=tuple(before.id for before, after in in_both if before.comparison != after.comparison),
        reweighted=tuple(before.id for before, after in in_both if before.weight != after.weight),
        moved=tuple(before.id for before, after in in_both if before.priority != after.priority),
    )


def _by_id(principles: Iterable[Principle]) -> dict[str, Principle]:
    return {principle.id: principle for principle in principles}


def _changes(old: Principle, new: Principle) -> Iterator[Change]:
    for field in Principle.model_fields:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield Change(of=old.id, field=field, old=before, new=after)


def _weight_changes(old: Mapping[Any, float], new: Mapping[Any, float]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        before, after = (weights.get(name, 1.0) for weights in (old, new))
        if before != after:
            yield Change(of=name, field="weight", old=before, new=after)
