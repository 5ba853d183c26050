"""What travels with a job to a cluster: the code of this process, the configuration as it was resolved, and the small
files that it names. Libraries do not (they are in the cluster's image), nor data and models, nor whatever else lies in
the directory from which somebody submits.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rlaif.config.files import FILE_KEYS, carried_name, dump_config
from rlaif.config.schema import Config

ROOT = Path(__file__).parents[2]
CODE = ("rlaif", "actors", "configs")  #: ``configs`` holds the shipped constitutions
CONFIG = "config.yaml"


def pack(config: Config, directory: Path) -> None:
    """Fill ``directory``, which becomes the job's working directory; ``rlaif run config.yaml`` works there."""
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    values = config.model_dump(mode="json")
    values["resources"]["address"] = "auto"
    for key in FILE_KEYS:
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section[part]
        _take_along(section, name, directory)
    text = dump_config(Config.model_validate(values))
    (directory / CONFIG).write_text(text, encoding="utf-8")


def _take_along(section: dict[str, Any], name: str, directory: Path) -> None:
    """Copy the file that ``section[name]`` names, under a name that changes with its content."""
    value = section[name]
    if value is None or not Path(value).suffix:  # a shipped one is part of the code
        return
    content = Path(value).read_bytes()
    copy = Path("files") / carried_name(name, content, Path(value).suffix)
    (directory / copy).parent.mkdir(exist_ok=True)
    (directory / copy).write_bytes(content)
    section[name] = str(copy)
