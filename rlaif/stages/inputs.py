"""What a configuration names is content: rows, weights, principles, examples. Whether it is still what the run used.

Records that a change outdates are made again (``bookkeeping``). A model is not: what a finished stage has trained stays
as it is. So a change in what a finished stage used is refused, until the user restores it, goes on in another run
directory, or lets the run go on from that stage (``rlaif run --from``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlaif.config.contradictions import flatten
from rlaif.config.files import FILE_KEYS
from rlaif.config.keys import MODEL_KEYS, SOURCE_KEYS
from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.engines.models import is_hub_name, local_model, model_hash
from rlaif.errors import DataError, ModelError
from rlaif.miniature.make import is_cached
from rlaif.miniature.paths import miniature_paths
from rlaif.stages.sources import SOURCES, find_changes
from rlaif.stages.user_data import UserData
from rlaif.storage.stored_run import StoredRun

INPUT_KEYS = (*SOURCES, *MODEL_KEYS, *FILE_KEYS)


@dataclass(frozen=True, kw_only=True)
class InputChange:
    """A configuration key whose content has changed since the run used it, and how."""

    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"


def data_at_hand(config: Config) -> UserData:
    """What a configuration names, as far as it is on this machine; nothing is made or fetched."""
    constitution, values = load_constitution(config.constitution), flatten(config)
    paths: dict[str, Path] = {}
    if is_cached(config.miniature, constitution):
        paths.update(miniature_paths(config, constitution, (*SOURCE_KEYS, *MODEL_KEYS)))
    for key in MODEL_KEYS:
        if is_hub_name(values[key]):
            with suppress(ModelError):
                paths[values[key]] = local_model(values[key], field=key, fetch=False)
    return UserData(config=config, paths=paths)


def input_hashes(data: UserData, keys: Iterable[str]) -> dict[str, str]:
    """The hash of every model and small file that the configuration names, by key."""
    values = flatten(data.config)
    wanted = [key for key in keys if key not in SOURCES and values[key] is not None]
    here = [key for key in wanted if key not in MODEL_KEYS or Path(data.path(values[key])).is_dir()]
    return {key: _hash(data, key, values[key]) for key in here}


def changes(data: UserData, run: StoredRun, keys: Iterable[str]) -> Iterator[InputChange]:
    """What differs from what the run has used. Reads every source to its end."""
    wanted, values = set(keys), flatten(data.config)
    for key in SOURCES:
        if key in wanted and values[key] is not None and run.journal.knows_source(key):
            try:
                change = find_changes(data, run.journal, key)
            except DataError as error:
                yield InputChange(key=key, what=str(error))
                continue
            if change.new or change.gone:
                yield InputChange(key=key, what=str(change))
    for key, now in input_hashes(data, wanted).items():
        if run.inputs.get(key, now) != now:
            yield InputChange(key=key, what=f"has changed ({run.inputs[key]}, now {now})")


def _hash(data: UserData, key: str, name: str) -> str:
    if key in MODEL_KEYS:
        return model_hash(data.path(name))
    if key == "constitution":
        return load_constitution(name).hash
    file = Path(name)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else name  # the name of a shipped one
