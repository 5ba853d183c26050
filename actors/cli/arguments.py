"""Arguments that several commands take."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
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
    sources: dict[str, str] = {}
    for option in options or ():
        name, equals, source = option.partition("=")
        if not equals or not source:
            raise UserError(f"--suite {option}: write NAME=SOURCE, such as xstest=xstest_prompts.csv")
        key = next((key for suite, key in SUITE_KEYS.items() if suite == name), None)
        if key is None:
            near = difflib.get_close_matches(name, SUITE_KEYS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"--suite {option}: no suite {name}; {hint}One of {', '.join(SUITE_KEYS)}")
        if key in sources:
            raise UserError(f"--suite {option}: {name} is given twice")
        sources[key] = source
    return sources


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
    fields: dict[str, str] = {}
    for option in options or ():
        name, equals, path = option.partition("=")
        if not equals or not path:
            raise UserError(f"--field {option}: write NAME=PATH, such as prompt=request.text")
        if name not in MAPPED_FIELDS:
            near = difflib.get_close_matches(name, MAPPED_FIELDS, n=1)
            raise UserError(
                f"--field {option}: no field {name}; {f'did you mean {near[0]}? ' if near else ''}One of "
                f"{', '.join(MAPPED_FIELDS)}"
            )
        if name in fields:
            raise UserError(f"--field {option}: {name} is given twice")
        fields[name] = path
    return fields
