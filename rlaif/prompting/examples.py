"""Few-shot examples: worked transcripts that show a model what a critique, a revision or a judgement looks like.

They come from a YAML list that the user names (``critique_revision.examples``, ``labelling.examples``); two sets of
ours are in ``configs/examples``. They are trusted text. Without them, small helpful models confuse the points of view
(a critique where a revision is due; Constitutional AI, arXiv 2212.08073, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rlaif.config.strict_yaml import mistakes, read_yaml
from rlaif.errors import ConfigError
from rlaif.prompting.questions import Ours, Part, QuestionTemplate
from rlaif.records import Turn

Text = Annotated[str, Field(min_length=1)]
E = TypeVar("E", bound="Example")


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Text

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (Turn(role="human", text=self.prompt),)


class RevisionExample(Example):
    response: Text
    critique_request: Text
    critique: Text
    revision_request: Text
    revision: Text


class LabelExample(Example):
    """A judged pair; ``reasoning`` is shown only to labellers that reason."""

    comparison: Text
    answer_a: Text
    answer_b: Text
    preferred: Literal["A", "B"]
    reasoning: Text | None = None

    @property
    def slot(self) -> int:
        return "AB".index(self.preferred)

    def parts(self, template: QuestionTemplate) -> Iterator[Part]:
        """The question, all of it trusted."""
        answers = {"answer_a": self.answer_a, "answer_b": self.answer_b}
        for part in template.question(self.turns, self.comparison, answers):
            yield Ours(part.text)


def read_examples(kind: type[E], path: str | None, field: str) -> tuple[E, ...]:
    """The examples in a YAML list; none without a path. Raises ConfigError naming file, place and field."""
    if path is None:
        return ()
    named = f"{field}={path}"
    try:
        tree = read_yaml(Path(path), named)
        examples: list[E] = TypeAdapter(list[kind]).validate_python(tree)  # type: ignore[valid-type]
        return tuple(examples)
    except ValidationError as error:
        raise ConfigError(mistakes(error, named)) from None
