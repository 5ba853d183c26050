"""Arguments that several commands take."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from rlaif.config.source import MAPPED_FIELDS
from rlaif.errors import UserError

ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="a YAML file, or a shipped one by name: quickstart")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted overrides, e.g. seed=1 run_dir=runs/two")]
InProcess = Annotated[bool, typer.Option("--in-process", help="run without Ray, in this process")]
FieldNames = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME=PATH", help="a field that a row has under another name: prompt=request.text"),
]
RunDirPath = Annotated[Path, typer.Argument(help="the directory of a run")]


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
