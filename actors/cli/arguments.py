"""Arguments that several commands take."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import typer

from rlaif.config.keys import SUITE_KEYS
from rlaif.config.schema import Config
from rlaif.config.source import MAPPED_FIELDS, is_data_set
from rlaif.data.files.sources import row_choice
from rlaif.errors import UserError
from rlaif.places.paths import is_file
from rlaif.places.urls import is_url

ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="a YAML file, or a shipped one by name: quickstart")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted overrides, e.g. seed=1 run_dir=runs/two")]
InProcess = Annotated[bool, typer.Option("--in-process", help="run without Ray, in this process")]
FieldNames = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME=PATH", help="a field that a row has under another name: prompt=request.text"),
]
RunDirPath = Annotated[Path, typer.Argument(help="the directory of a run")]
SuiteSources = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME=SOURCE", help="a test suite and its file: xstest=xstest_prompts.csv"),
]


def named_suites(options: Iterable[str] | None) -> dict[str, str]:
    """Configuration key of a test suite -> its source, of what ``--suite`` says. Raises UserError."""
    keys = {str(suite): key for suite, key in SUITE_KEYS.items()}
    sources = _named("--suite", options, keys, "NAME=SOURCE, such as xstest=xstest_prompts.csv")
    return {keys[name]: source for name, source in sources.items()}


def names_answers(model: str) -> bool:
    """Whether what stands in a model's place is a source of finished answers: a file, with ``#ROWS`` or not, a URL, a
    data set."""
    return is_url(model) or is_data_set(model) or is_file(Path(row_choice(model)[0]))


def check_examined(config: Config, model: str) -> None:
    """Raises UserError unless there is something to examine: test suites, or finished answers."""
    suites = [name for name, source in config.evaluation.suites if source is not None]
    if config.evaluation.answers is not None and suites:
        raise UserError(
            f"--suite {suites[0]}: finished answers are examined as they are; give a model to answer a suite"
        )
    if config.evaluation.answers is None and not suites:
        names = ", ".join(SUITE_KEYS)
        raise UserError(
            f"{model}: no such file of answers, and for a model no test suite is named; give --suite "
            f"NAME=SOURCE, with one of {names}"
        )


def named_fields(options: Iterable[str] | None) -> dict[str, str]:
    """Field that the readers know -> dotted path, of what ``--field`` says. Raises UserError."""
    return _named("--field", options, MAPPED_FIELDS, "NAME=PATH, such as prompt=request.text")


def _named(option: str, given: Iterable[str] | None, known: Collection[str], form: str) -> dict[str, str]:
    """Name -> value, of an option that may be given once for each of the names ``known``. Raises UserError."""
    values: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UserError(f"{option} {text}: write {form}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"{option} {text}: no {option.lstrip('-')} {name}; {hint}One of {', '.join(known)}")
        if name in values:
            raise UserError(f"{option} {text}: {name} is given twice")
        values[name] = value
    return values
