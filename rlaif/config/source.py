"""A source of rows: its place, which of its rows are wanted, where in a row its parts are. What a row may hold."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from rlaif.config.section import Section

HUB = "hf:"


def is_data_set(path: str) -> bool:
    """Whether a path names a data set, ``hf:NAME``, and no file behind ``hf://``."""
    return path.startswith(HUB) and not path.startswith(f"{HUB}//")


#: What a mapping may name: the fields that the readers know. ``Source`` has them as keys.
MAPPED_FIELDS = (
    "prompt",
    "messages",
    "instruction",
    "input",
    "history",
    "system",
    "chosen",
    "rejected",
    "answer_1",
    "answer_2",
    "gold",
    "question",
    "answers",
)
_HUB_KEYS = ("data_dir", "config", "split")


def _mapped(what: str) -> Any:
    return Field(None, description=f"dotted path of the field with {what}; null: not mapped")


class RowLimits(Section):
    """What one row may hold. A row with more is quarantined, and costs no more than the time to pass over it."""

    max_chars: Annotated[int, Field(ge=1)] = Field(
        1_000_000, description="characters of a row as it is written; in parquet and Arrow, bytes of one cell"
    )
    max_turns: Annotated[int, Field(ge=1)] = Field(1000, description="turns of a conversation")
    max_answers: Annotated[int, Field(ge=1)] = Field(1000, description="answers to one question with voted answers")


DEFAULT_LIMITS = RowLimits()


class Source(Section):
    """Where rows come from. A text is a ``path`` and nothing else. Where a field is named, only the named fields of a
    row are read: ``prompt: conversation.0.text`` is the field ``text`` in the first item of ``conversation``."""

    path: str = Field(description="a file, a directory, a pattern, `hf:NAME` or `miniature:NAME`")
    limit: str | None = Field(
        None, description="rows FIRST-LAST, or the first so many; as `#FIRST-LAST` in a path; null: all"
    )
    sample: Annotated[int, Field(ge=1)] | None = Field(
        None, description="number of rows that are drawn by lot; as `#N` in a path; null: all"
    )
    config: str | None = Field(None, description="configuration of a data set of the hub; null: its only one")
    split: str | None = Field(None, description="split of a data set of the hub; null: train")
    data_dir: str | None = Field(None, description="folder of a data set of the hub; null: all of it")
    prompt: str | None = _mapped("the prompt: a text or messages")
    messages: str | None = _mapped("a conversation")
    instruction: str | None = _mapped("an instruction")
    input: str | None = _mapped("what the instruction is about")
    history: str | None = _mapped("the turns before the instruction")
    system: str | None = _mapped("the system turn")
    chosen: str | None = _mapped("the better answer")
    rejected: str | None = _mapped("the worse answer")
    answer_1: str | None = _mapped("an answer to be compared")
    answer_2: str | None = _mapped("the other answer")
    gold: str | None = _mapped("P(answer_1 better)")
    question: str | None = _mapped("a question with voted answers")
    answers: str | None = _mapped("the voted answers")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, dict | Source):
            return value
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "must be text")
        if not value:
            raise PydanticCustomError("string_too_short", "must not be empty")
        return {"path": value}

    @field_validator("limit", mode="before")
    @classmethod
    def _rows_as_text(cls, value: Any) -> Any:
        value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(value, str) and not re.fullmatch(r"(\d{1,18}-)?\d{1,18}", value, re.ASCII):
            raise ValueError("must be FIRST-LAST or a number of rows, counted from 1")
        return value

    @model_validator(mode="after")
    def _check(self) -> Source:
        if self.limit and self.sample:
            raise ValueError("limit and sample: choose the rows by one of them")
        for key in _HUB_KEYS:
            if getattr(self, key) and not is_data_set(self.path):
                raise ValueError(f"{key}: only a path that begins with {HUB} has it; name files by their path")
        return self

    @model_serializer(mode="wrap")
    def _short(self, dump: SerializerFunctionWrapHandler) -> Any:
        values = {key: value for key, value in dump(self).items() if value is not None}
        return self.path if list(values) == ["path"] else values

    @classmethod
    def of(cls, source: Source | str) -> Source:
        """``source``, or the source that a text means, which may be any name of a file."""
        return source if isinstance(source, Source) else cls.model_construct(path=source)

    @property
    def fields(self) -> dict[str, str]:
        """Field that a reader knows -> dotted path of the field that holds it."""
        return {name: path for name in MAPPED_FIELDS if (path := getattr(self, name)) is not None}

    def __str__(self) -> str:
        """The place as a text: what ``path`` would be if it said all but the fields."""
        folder = f"/{self.data_dir}" if self.data_dir else ""
        config = f":{self.config}" if self.config else ""
        split = f"@{self.split}" if self.split else ""
        rows = self.limit and (self.limit if "-" in self.limit else f"1-{self.limit}")
        rows = f"#{rows or self.sample}" if rows or self.sample else ""
        return f"{self.path}{folder}{config}{split}{rows}"
