"""The constitution: a named, versioned, hashed list of principles, and how principles are drawn.

Source: Constitutional AI (arXiv 2212.08073), sections 3.1 (critique and revision) and 4.1 (comparisons): one
principle is drawn at random for each revision and for each label.

Departures from the paper:
1. A draw is seeded by its purpose (run seed, prompt, round; or run seed, prompt, pair), never by the order of
   execution, so that a rerun, a resumed run and a swapped pair draw the same principle.
2. Principles carry category, priority, weight and source. ``draw: weighted`` draws in proportion to a principle's
   weight times those of its category and its priority. With ``labelling.conflicts: priority``, the priority says which
   of several principles decides a label (``rlaif.tasks.labelling``).
3. Draws are by rendezvous hashing: every principle has a score for every draw, whatever the others are, and the best
   score wins. Adding, removing or reweighting one principle thus changes only the draws that it wins or won, so that
   only the labels made by those draws are made again (``rlaif.constitution.diff``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from rlaif.config.strict_yaml import describe_problem, first_of, listed, place_of, read_yaml
from rlaif.constitution.public_files import PUBLIC_SUFFIXES, tree_of
from rlaif.errors import ConfigError
from rlaif.places.paths import is_file
from rlaif.seeds import SEPARATOR, hash_of, seed_of

SHIPPED_CONSTITUTIONS = Path(__file__).parent / "shipped"

Category = Literal[
    "harm_avoidance",
    "honesty",
    "autonomy_and_rights",
    "childrens_safety",
    "thoughtfulness",
    "helpfulness",
    "edge_cases",
]
Priority = Literal["safety", "ethics", "guidelines", "helpfulness"]  #: which principle prevails in a conflict
PRIORITIES: tuple[Priority, ...] = get_args(Priority)  #: the highest first
DrawRule = Literal["uniform", "weighted"]
PrincipleText = Annotated[str, Field(min_length=1)]
Weight = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]  #: the product of three can be compared
MAX_PRINCIPLES = 2000  #: every draw, of which each row has several, looks at all of them: some 3 ms for so many

#: The priority of a principle that names none.
PRIORITY_OF: Mapping[str, Priority] = {
    "harm_avoidance": "safety",
    "childrens_safety": "safety",
    "edge_cases": "safety",
    "honesty": "ethics",
    "autonomy_and_rights": "ethics",
    "thoughtfulness": "guidelines",
    "helpfulness": "helpfulness",
}


class Principle(BaseModel):
    """One value, usable for revision (both requests), for labelling (``comparison``), or for both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    category: Category
    priority: Priority = Field(default_factory=lambda fields: PRIORITY_OF[fields["category"]])
    weight: Weight = 1.0
    source: PrincipleText
    critique_request: PrincipleText | None = None
    revision_request: PrincipleText | None = None
    comparison: PrincipleText | None = None

    @model_validator(mode="after")
    def usable(self) -> Principle:
        if (self.critique_request is None) != (self.revision_request is None):
            raise ValueError("critique_request and revision_request go together; give both or neither")
        if self.critique_request is None and self.comparison is None:
            raise ValueError("usable in no step; give critique_request and revision_request, or comparison")
        return self


class Constitution(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: PrincipleText
    version: PrincipleText
    category_weights: dict[Category, Weight] = Field(
        default_factory=dict, description="multiplies the weights of a category's principles; 1 where none is given"
    )
    priority_weights: dict[Priority, Weight] = Field(
        default_factory=dict, description="multiplies the weights of a priority's principles; 1 where none is given"
    )
    principles: Annotated[tuple[Principle, ...], Field(min_length=1, max_length=MAX_PRINCIPLES)]

    @model_validator(mode="after")
    def unique_ids(self) -> Constitution:
        counts = Counter(principle.id for principle in self.principles)
        repeated = sorted(id for id, count in counts.items() if count > 1)
        if repeated:
            raise ValueError(f"principle ids must be unique; repeated: {listed(repeated)}")
        return self

    @cached_property
    def hash(self) -> str:
        """Hash, in 16 hex digits, of the principles and of how they are drawn.

        Name, version and the order of the principles do not matter; a weight of 1 for a category or a priority is the
        same as none.
        """
        by_id = sorted(self.principles, key=lambda principle: principle.id)
        by_category = {category: weight for category, weight in self.category_weights.items() if weight != 1}
        by_priority = {priority: weight for priority, weight in self.priority_weights.items() if weight != 1}
        weights = [by_category, by_priority] if by_priority else [by_category]
        content = [*(p.model_dump_json() for p in by_id), *(json.dumps(each, sort_keys=True) for each in weights)]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]

    @cached_property
    def for_revision(self) -> tuple[Principle, ...]:
        """The principles for revision, ready to be drawn: their weights include those of categories and priorities."""
        return tuple(self._as_drawn(p) for p in self.principles if p.critique_request is not None)

    @cached_property
    def for_comparison(self) -> tuple[Principle, ...]:
        """The principles for labelling, ready to be drawn: their weights include those of categories and priorities."""
        return tuple(self._as_drawn(p) for p in self.principles if p.comparison is not None)

    @cached_property
    def priorities(self) -> Mapping[str, Priority]:
        """By principle id."""
        return {principle.id: principle.priority for principle in self.principles}

    def _as_drawn(self, principle: Principle) -> Principle:
        weight = principle.weight * self.category_weights.get(principle.category, 1.0)
        weight *= self.priority_weights.get(principle.priority, 1.0)
        return principle.model_copy(update={"weight": weight})


# ------------------------------------------------------------------------------------------------------ draws


def draw_principle(principles: Sequence[Principle], draw: DrawRule, *key: object) -> Principle:
    """The principle for ``key``, the purpose of the draw, e.g. (run seed, prompt id, round)."""
    return draw_principles(principles, 1, draw, *key)[0]


def draw_principles(principles: Sequence[Principle], num: int, draw: DrawRule, *key: object) -> tuple[Principle, ...]:
    """``num`` different principles for ``key``, in the order drawn; all when there are fewer.

    Equivalent to sequential draws without replacement, each in proportion to the remaining weights.
    """

    begun = hash_of("principle", *key)  # the part they share is long, so it is hashed once

    def score(principle: Principle) -> float:
        """An exponential waiting time at the rate of the weight: the first of several is a weighted draw."""
        mine = begun.copy()
        mine.update(f"{SEPARATOR}{principle.id}".encode())
        uniform = (seed_of(mine) + 0.5) / 2**63
        return -math.log(uniform) / (principle.weight if draw == "weighted" else 1.0)

    return tuple(sorted(principles, key=score)[:num])


# ------------------------------------------------------------------------------------------------------ files
def load_constitution(name_or_path: str) -> Constitution:
    """Read a constitution by path, or a shipped one by name. Raises ConfigError naming file and field.

    A file that is not YAML may also have one of the shapes of others (``rlaif.constitution.public_files``).
    """
    path, tree = read_constitution(name_or_path)
    return parse_constitution(tree, path)


def parse_constitution(tree: Any, path: Path) -> Constitution:
    """The constitution in a file's contents. Raises ConfigError with one line for each mistake."""
    try:
        return Constitution.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{path}: {place_of(problem) or 'top level'}: {describe_mistake(problem)}" for problem in mistakes_in(error)
        ]
        raise ConfigError("\n".join(first_of(lines))) from None


def mistakes_in(error: ValidationError) -> Iterator[ErrorDetails]:
    """Each mistake in a constitution, as pydantic has it, without those that only follow from another."""
    return (problem for problem in error.errors() if not _follows(problem))


def describe_mistake(problem: ErrorDetails) -> str:
    """What is wrong, in plain words, and what to do about it."""
    is_id = problem["type"] == "string_pattern_mismatch"
    return "must be lower-case letters, digits and underscores" if is_id else describe_problem(problem)


def _follows(problem: ErrorDetails) -> bool:
    """Whether another mistake is the cause: a default that depends on a wrong field, a list without its wrong items."""
    kind = problem["type"]
    return kind == "default_factory_not_called" or (kind == "too_short" and bool(problem["input"]))


def read_constitution(name_or_path: str) -> tuple[Path, Any]:
    """A constitution's file and its contents, not validated. Raises ConfigError when it cannot be read."""
    path = Path(name_or_path)
    if not path.suffix:
        path = SHIPPED_CONSTITUTIONS / f"{name_or_path}.yaml"
    if not is_file(path):
        shipped = ", ".join(sorted(p.stem for p in SHIPPED_CONSTITUTIONS.glob("*.yaml")))
        raise ConfigError(f"constitution={name_or_path}: no such file; give a YAML file or one of: {shipped}")
    if path.suffix.lower() in PUBLIC_SUFFIXES:
        return path, tree_of([path])
    return path, read_yaml(path, str(path), Constitution.model_fields)
