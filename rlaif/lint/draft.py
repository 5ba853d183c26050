"""A constitution as its file has it, valid or not, and what a lint rule and a finding are.

Rules read a draft, because a ``Constitution`` exists only when nothing is wrong; so all findings come at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlaif.constitution.principles import MAX_PRINCIPLES, PRIORITY_OF

Severity = Literal["error", "warning"]
PlacedMessage = tuple[str, str]  #: (place inside the file, message)

TEXTS = ("critique_request", "revision_request", "comparison")


@dataclass(frozen=True, kw_only=True)
class DraftEntry:
    """One principle of the file. ``place``: its id, or ``principles.INDEX`` when it has no id of its own."""

    place: str
    fields: Mapping[str, Any]

    def text(self, field: str) -> str:
        """The field's text; empty when there is none."""
        value = self.fields.get(field)
        return value.strip() if isinstance(value, str) else ""

    @property
    def texts(self) -> dict[str, str]:
        """The texts that a model sees, by field."""
        return {field: self.text(field) for field in TEXTS if self.text(field)}

    @property
    def priority(self) -> str | None:
        return self.text("priority") or PRIORITY_OF.get(self.text("category"))


@dataclass(frozen=True, kw_only=True)
class Draft:
    file: str
    tree: Any
    entries: tuple[DraftEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """``place``: the file, and in it the principle and the field."""

    code: str
    severity: Severity
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.severity} {self.place}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One lint rule; ``passing`` and ``failing`` are YAML of the smallest constitutions that do so by this rule.

    ``ask``: what a model is asked about a principle (yes is a finding), or None when the rule does not apply to it.
    """

    code: str
    severity: Severity
    title: str
    check: Callable[[Draft], Iterable[PlacedMessage]]
    passing: str
    failing: str
    ask: Callable[[Draft, DraftEntry], str | None] | None = None

    def findings(self, draft: Draft) -> tuple[Finding, ...]:
        return tuple(self.finding(draft, place, message) for place, message in self.check(draft))

    def finding(self, draft: Draft, place: str, message: str) -> Finding:
        full_place = f"{draft.file}: {place}" if place else draft.file
        return Finding(code=self.code, severity=self.severity, place=full_place, message=message)


def draft_of(tree: Any, file: str) -> Draft:
    principles = tree.get("principles") if isinstance(tree, dict) else None
    listed = principles[:MAX_PRINCIPLES] if isinstance(principles, list) else []  # with more, it is no constitution
    rows = [row if isinstance(row, dict) else {} for row in listed]
    ids = [row.get("id") for row in rows]
    counts = Counter(id for id in ids if isinstance(id, str))
    places = [id if isinstance(id, str) and counts[id] == 1 else f"principles.{i}" for i, id in enumerate(ids)]
    entries = tuple(DraftEntry(place=place, fields=row) for place, row in zip(places, rows, strict=True))
    return Draft(file=file, tree=tree, entries=entries)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())
