"""What travels with a job to a cluster: the code of this process, the resolved configuration, and the small files that
it names. Libraries do not travel (they are in the cluster's image), nor do data, models, or anything else in the
directory from which the job is submitted.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rlaif.config.files import FILE_KEYS, SHIPPED_CONFIGS, carried_name, dump_config
from rlaif.config.schema import Config

ROOT = Path(__file__).parents[2]
CODE = ("rlaif", "actors")
CONFIG = "config.yaml"


def pack(config: Config, directory: Path) -> None:
    """Fill ``directory``, which becomes the job's working directory; ``rlaif run config.yaml`` works there.

    The packages are laid out as a wheel has them, with the shipped configurations inside.
    """
    for name in CODE:
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SHIPPED_CONFIGS, directory / "rlaif" / "config" / "shipped", dirs_exist_ok=True)
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
    if value is None or not Path(value).suffix:  # shipped files travel with the code
        return
    content = Path(value).read_bytes()
    copy = Path("files") / carried_name(name, content, Path(value).suffix)
    (directory / copy).parent.mkdir(exist_ok=True)
    (directory / copy).write_bytes(content)
    section[name] = str(copy)
