"""What travels with a job to a cluster: the code of this process, the resolved configuration, and the small files that
it names. Libraries do not travel (they are in the cluster's image), nor do data, models, or anything else in the
directory from which the job is submitted.

Of the packages' directories, only files of the kinds that the packages consist of travel: nothing hidden, no links, no
keys. A file with a secret in it stops the submission.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlaif.config.files import FILE_KEYS, SHIPPED_CONFIGS, carried_name, dump_config
from rlaif.config.schema import Config
from rlaif.errors import UserError, holds_secret

ROOT = Path(__file__).parents[2]
CODE = ("rlaif", "actors")
PACKAGE_SUFFIXES = frozenset({".py", ".yaml", ".jinja", ".css"})  #: suffixes of the packages' files
CONFIG = "config.yaml"


def pack(config: Config, directory: Path) -> None:
    """Fill ``directory``, which becomes the job's working directory; ``rlaif run config.yaml`` works there.

    The packages are laid out as a wheel has them, with the shipped configurations inside. Raises UserError for a file
    that holds a secret.
    """
    for name in CODE:
        _copy(ROOT / name, directory / name)
    _copy(SHIPPED_CONFIGS, directory / "rlaif" / "config" / "shipped")
    values = config.model_dump(mode="json")
    values["resources"]["address"] = "auto"
    for key in FILE_KEYS:
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section[part]
        _take_along(section, name, directory, key)
    text = dump_config(Config.model_validate(values))
    _refuse_secrets(text, "the configuration")
    (directory / CONFIG).write_text(text, encoding="utf-8")


def known_files(folder: Path) -> Iterator[Path]:
    """The files below ``folder`` that belong to a package."""
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in PACKAGE_SUFFIXES and not is_hidden and not path.is_symlink() and path.is_file():
            yield path


def _copy(folder: Path, destination: Path) -> None:
    for path in known_files(folder):
        _refuse_secrets(path.read_text(encoding="utf-8", errors="replace"), str(path))
        copy = destination / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _refuse_secrets(text: str, what: str) -> None:
    if holds_secret(text):
        raise UserError(
            f"{what}: holds a key or token, and would be sent to the cluster; take it out, and give it to the nodes "
            "in their environment"
        )


def _take_along(section: dict[str, Any], name: str, directory: Path, key: str) -> None:
    """Copy the file that ``section[name]`` names, under a name that changes with its content."""
    value = section[name]
    if value is None or not Path(value).suffix:  # shipped files travel with the code
        return
    content = Path(value).read_bytes()
    _refuse_secrets(content.decode(errors="replace"), f"{key}={value}")
    copy = Path("files") / carried_name(name, content, Path(value).suffix)
    (directory / copy).parent.mkdir(exist_ok=True)
    (directory / copy).write_bytes(content)
    section[name] = str(copy)
