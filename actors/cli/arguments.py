"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="a YAML file, or a shipped one by name: quickstart")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted overrides, e.g. seed=1 run_dir=runs/two")]
InProcess = Annotated[bool, typer.Option("--in-process", help="run without Ray, in this process")]
RunDirPath = Annotated[Path, typer.Argument(help="the directory of a run")]
