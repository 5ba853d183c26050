"""Few-shot examples: worked transcripts that show a model what a critique, a revision or a judgement looks like.

They come from a YAML list that the user names (``critique_revision.examples``, ``labelling.examples``): a file, or one
of the shipped sets in ``configs/examples``, ``revisions`` and ``labels``. They are trusted text. Without them, small
helpful models confuse the points of view (they write a critique where a revision is asked for; Constitutional AI, arXiv
2212.08073, section 3.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rlaif.config.files import SHIPPED_CONFIGS
from rlaif.config.strict_yaml import describe_mistakes, read_yaml
from rlaif.errors import ConfigError
from rlaif.records import Turn

_Text = Annotated[str, Field(min_length=1)]
_Example = TypeVar("_Example", bound="Example")


class Example(BaseModel):
    """What all examples have: what the human said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: _Text

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (Turn(role="human", text=self.prompt),)


class RevisionExample(Example):
    """An answer, its critique and its revision."""

    response: _Text
    critique_request: _Text
    critique: _Text
    revision_request: _Text
    revision: _Text


class LabelExample(Example):
    """A judged pair; ``reasoning`` is shown only to labellers that reason."""

    comparison: _Text
    answer_a: _Text
    answer_b: _Text
    preferred: Literal["A", "B"]
    reasoning: _Text | None = None

    @property
    def slot(self) -> int:
        """0 or 1: the preferred answer's place in ``questions.LETTERS``."""
        return "AB".index(self.preferred)


def read_examples(kind: type[_Example], path: str | None, field: str) -> tuple[_Example, ...]:
    """The examples in a YAML file, or in a shipped one for a name without a suffix; none without a path.

    Raises ConfigError naming the file, the entry and its key.
    """
    if path is None:
        return ()
    named = f"{field}={path}"
    file = Path(path) if Path(path).suffix else SHIPPED_CONFIGS / "examples" / f"{path}.yaml"
    try:
        tree = read_yaml(file, named)
        examples: list[_Example] = TypeAdapter(list[kind]).validate_python(tree)  # type: ignore[valid-type]
        return tuple(examples)
    except ValidationError as error:
        raise ConfigError(describe_mistakes(error, named)) from None
