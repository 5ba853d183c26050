"""The constitution: a named, versioned, hashed list of principles, and how principles are drawn.

Source: Constitutional AI (arXiv 2212.08073), sections 3.1 (critique and revision) and 4.1 (comparisons): one
principle is drawn at random for each revision and for each label.

Departures from the paper:
1. Draws are seeded by what they are for (run seed, prompt, round; or run seed, prompt, pair), never by the order of
   execution, so that a rerun, a resumed run and a swapped pair draw the same principle.
2. Principles carry category, weight and source; ``draw: weighted`` uses the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlaif.errors import ConfigError

SHIPPED = Path(__file__).parent.parent / "configs" / "constitutions"

Category = Literal[
    "harm_avoidance",
    "honesty",
    "autonomy_and_rights",
    "childrens_safety",
    "thoughtfulness",
    "helpfulness",
    "edge_cases",
]
Draw = Literal["uniform", "weighted"]
Text = Annotated[str, Field(min_length=1)]


class Principle(BaseModel):
    """One value, usable for revision (both requests), for labelling (``comparison``), or for both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    category: Category
    weight: Annotated[float, Field(gt=0)] = 1.0
    source: Text
    critique_request: Text | None = None
    revision_request: Text | None = None
    comparison: Text | None = None

    @model_validator(mode="after")
    def usable(self) -> Principle:
        if (self.critique_request is None) != (self.revision_request is None):
            raise ValueError("critique_request and revision_request go together; give both or neither")
        if self.critique_request is None and self.comparison is None:
            raise ValueError("usable in no step; give critique_request and revision_request, or comparison")
        return self


class Constitution(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    version: Text
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def unique_ids(self) -> Constitution:
        ids = [principle.id for principle in self.principles]
        repeated = sorted({id for id in ids if ids.count(id) > 1})
        if repeated:
            raise ValueError(f"principle ids must be unique; repeated: {', '.join(repeated)}")
        return self

    @cached_property
    def hash(self) -> str:
        """Content hash of what the principles say, in 16 hex digits; name and version do not count."""
        content = [principle.model_dump_json() for principle in self.principles]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]

    @cached_property
    def for_revision(self) -> tuple[Principle, ...]:
        return tuple(p for p in self.principles if p.critique_request is not None)

    @cached_property
    def for_comparison(self) -> tuple[Principle, ...]:
        return tuple(p for p in self.principles if p.comparison is not None)


def seed_from(*parts: object) -> int:
    """A 63-bit seed that depends on ``parts`` alone, the same on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_principle(principles: Sequence[Principle], draw: Draw, *key: object) -> Principle:
    """The principle for ``key`` = what it is drawn for, e.g. (run seed, prompt id, round)."""
    rng = np.random.default_rng(seed_from("principle", *key))
    if draw == "uniform":
        return principles[int(rng.integers(len(principles)))]
    weights = np.array([p.weight for p in principles])
    return principles[int(rng.choice(len(principles), p=weights / weights.sum()))]


def load_constitution(name_or_path: str) -> Constitution:
    """Read a constitution by path, or a shipped one by name. Raises ConfigError naming file and field."""
    path = Path(name_or_path)
    if not path.suffix:
        path = SHIPPED / f"{name_or_path}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"constitution={name_or_path}: no such file; give a YAML file or one of: {shipped}")
    try:
        return Constitution.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None
