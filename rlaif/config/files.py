"""Configuration files and overrides become one ``Config``; every mistake is shown at once.

Layers, weakest first: the defaults in ``schema``, the file that ``extends:`` names (relative to the file that says
so), the file itself, dotted overrides ``a.b=c``, values that a command sets. Sections merge key by key, custom
resources included; a list is replaced.

What a relative path is relative to: ``constitution``, lexicon, examples and templates to the file that names them (in
an override, to the working directory), so that a configuration can be used from anywhere; data sources and ``run_dir``
always to the working directory, because they belong to the user who runs it.

Shipped configurations have names: ``quickstart`` is ``configs/quickstart.yaml``, which a wheel holds in
``rlaif/config/shipped``. A file in the working directory (or, for ``extends:``, next to the file that says so) goes
first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlaif.config.contradictions import Mistake, contradictions, flatten
from rlaif.config.keys import alternatives, field_type, nearest_key, section_type
from rlaif.config.overrides import read_override
from rlaif.config.resuming import may_change
from rlaif.config.schema import Config
from rlaif.config.section import Section
from rlaif.config.source import Source
from rlaif.config.strict_yaml import MAX_MISTAKES, first_of, line_of, parse_yaml, reason_of, rule_of
from rlaif.errors import ConfigError, format_value
from rlaif.places.paths import is_file
from rlaif.places.urls import is_url

CARRIED = re.compile(r"-carried-[0-9a-f]{16}(\.[^/]*)?$")
PACKAGED = Path(__file__).parent / "shipped"
#: Where the shipped configurations are: in the package when installed from a wheel, in the checkout otherwise.
SHIPPED_CONFIGS = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2] / "configs"
#: small files that belong to the configuration file that names them
FILE_KEYS = (
    "constitution",
    "miniature.lexicon",
    "critique_revision.examples",
    "labelling.examples",
    "labelling.template",
    "supervision.chat_template",
)
Tree = dict[str, Any]


# ----------------------------------------------------------------------------------------------- public verbs
def load_config(
    path: str | Path, overrides: Sequence[str] = (), values: Mapping[str, object] = MappingProxyType({})
) -> Config:
    """The configuration in ``path``, a file or the name of a shipped one, with ``overrides`` on top.

    ``overrides`` are texts ``section.key=value`` as users type them (``rlaif.config.overrides``). ``values``, by dotted
    key, are strongest; they are taken as they are, never parsed.
    Raises ConfigError with one line for every mistake: in the files, in the overrides, in single values, and
    between values that contradict each other.
    """
    mistakes: list[Mistake] = []
    tree = _read_file(config_file(path), (), mistakes)
    complete = not mistakes
    for override in sorted(overrides, key=_depth):
        _apply_text(tree, override, mistakes)
    for key, value in values.items():
        _apply(tree, key, value, mistakes)
    config = _validate(tree, mistakes)
    wrong = {key for mistake in mistakes for key in mistake.keys}
    # A contradiction that rests on a default in place of a wrong value would only confuse.
    if complete:
        mistakes += [c for c in contradictions(config) if not any(_touches(k, wrong) for k in c.keys)]
    if mistakes:
        raise ConfigError("\n".join(first_of(list(dict.fromkeys(mistake.line for mistake in mistakes)))))
    return config


def config_file(name: str | Path, directory: Path = Path()) -> Path:
    """The file that ``name`` means in ``directory``: a file there, else a shipped configuration of that name."""
    path = directory / name
    shipped = SHIPPED_CONFIGS / f"{name}.yaml"
    is_name = len(Path(name).parts) == 1 and not Path(name).suffix
    return shipped if is_name and not is_file(path) and is_file(shipped) else path


def expand_home(path: str | Path) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced; one that names no user is a name like any other."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML; loading it gives an equal ``Config``."""
    values = config.model_dump(mode="json")
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    breaks = any(mark in text for mark in "\x85\u2028\u2029")  # YAML does not keep these line breaks
    return yaml.safe_dump(values, sort_keys=False) if breaks else text


def differences(a: Config, b: Config) -> list[str]:
    """Dotted keys whose values differ, in the order of the fields.

    For files that travelled with a job (``carried_name``) only the names count, because their directory differs each
    time.
    """
    left, right = _placeless(flatten(a)), _placeless(flatten(b))
    return [key for key in left if left[key] != right[key]]


def config_hash(config: Config) -> str:
    """16 hex digits that differ where ``differences`` finds any, but for what may change between resumes."""
    flat = _placeless(flatten(config))
    kept = {key: flat[key] for key in sorted(flat) if not may_change(key)}
    return hashlib.sha256(repr(kept).encode()).hexdigest()[:16]


def _placeless(flat: Tree) -> Tree:
    carried = {key: Path(flat[key]).name for key in FILE_KEYS if flat[key] and CARRIED.search(flat[key])}
    return {**flat, **carried}


def carried_name(name: str, content: bytes, suffix: str) -> str:
    """The name of a file that travels with a job; it changes with the file's content."""
    return f"{name}-carried-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"


# ------------------------------------------------------------------------------------------- files and layers
def _read_file(path: Path, chain: tuple[Path, ...], mistakes: list[Mistake]) -> Tree:
    """One file merged over the one it extends; ``chain`` holds the files that led here, to detect a circle."""
    if chain and (place := _resolved(path)) in chain:
        circle = " -> ".join(p.name for p in (*chain[chain.index(place) :], path))
        mistakes.append(
            _mistake("extends", path.name, f"the files extend each other in a circle ({circle})", "remove one extends")
        )
        return {}
    tree = _parse_file(path, chain, mistakes)
    base = tree.pop("extends", None)
    _anchor_files(tree, path.parent)
    if base is None:
        return tree
    if not isinstance(base, str):
        mistakes.append(_mistake("extends", base, "must be one file name", f"correct it in {path}"))
        return tree
    return _merge(_read_file(config_file(base, path.parent), (*chain, _resolved(path)), mistakes), tree)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError):  # a name that no file can have
        return path


def _parse_file(path: Path, chain: tuple[Path, ...], mistakes: list[Mistake]) -> Tree:
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), (*Config.model_fields, "extends"))
    except yaml.YAMLError as error:
        mistakes.append(
            Mistake(keys=(), line=f"{path}{line_of(error)}: not YAML: {reason_of(error)}; correct the file")
        )
    except UnicodeDecodeError:
        mistakes.append(Mistake(keys=(), line=f"{path}: not UTF-8 text; save it as UTF-8"))
    except (OSError, ValueError) as error:  # a name that no file can have, too
        why = getattr(error, "strerror", error)
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({why})"
        named_by = f"extends={path.name} in {chain[-1]}: " if chain else ""
        shipped = ", ".join(sorted(file.stem for file in SHIPPED_CONFIGS.glob("*.yaml")))
        fix = f"give a YAML file, or one of the shipped configurations: {shipped}"
        mistakes.append(Mistake(keys=(), line=f"{named_by}{path}: {reason}; {fix}"))
    else:
        if isinstance(tree, dict):
            return _without_empty_sections(tree, Config)
        if tree is not None:
            mistakes.append(Mistake(keys=(), line=f"{path}: must hold keys and values; start with e.g. seed: 0"))
    return {}


def _without_empty_sections(tree: Tree, section: type[Section]) -> Tree:
    """``data:`` with nothing below it reads as null; it means an empty section."""
    cleaned: Tree = {}
    for key, value in tree.items():
        inner = section_type(section, key)
        if inner is not None and inner is not Source and value is None:
            continue
        cleaned[key] = _without_empty_sections(value, inner) if inner and isinstance(value, dict) else value
    return cleaned


def _merge(base: Tree, top: Tree, section: type[Section] | None = Config) -> Tree:
    """``top`` over ``base``; ``section`` is the one whose keys they hold, None where keys are the user's own."""
    merged = dict(base)
    for key, value in top.items():
        inner = section and section_type(section, key)
        below = _source_keys(merged.get(key)) if inner is Source else merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            value = _merge(below, value, inner)
        merged[key] = value
    return merged


def _source_keys(value: Any) -> Any:
    """A source that is written as a text (or is none), as the keys that say the same."""
    return {"path": value} if isinstance(value, str) else {} if value is None else value


def _anchor_files(tree: Tree, directory: Path) -> None:
    for key in FILE_KEYS:
        *sections, name = key.split(".")
        node: Any = tree
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if isinstance(node, dict):
            _anchor(node, name, directory)


def _anchor(tree: Tree, name: str, directory: Path) -> None:
    """Make the file in ``tree[name]`` absolute; a name without a suffix is that of a shipped file, and is kept, as is a
    URL, which is refused later."""
    value = tree.get(name)
    if isinstance(value, str) and Path(value).suffix and not is_url(value):
        tree[name] = str((directory / expand_home(value)).resolve())


# -------------------------------------------------------------------------------------------------- overrides
def _depth(override: str) -> int:
    """Of the key: what is set as a whole is set before its parts, in whatever order they are given."""
    return override.partition("=")[0].count(".")


def _apply_text(tree: Tree, override: str, mistakes: list[Mistake]) -> None:
    """One ``section.key=value`` as a user types it."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        mistakes.append(Mistake(keys=(), line=f"{format_value(override)}: not an override; write section.key=value"))
        return
    try:
        value = read_override(key, text)
    except yaml.YAMLError as error:
        mistakes.append(_mistake(key, text, f"not a YAML value: {reason_of(error)}", "correct it"))
        return
    _apply(tree, key, value, mistakes)


def _apply(tree: Tree, key: str, value: object, mistakes: list[Mistake]) -> None:
    *sections, name = key.split(".")
    section: type[Section] | None = Config
    for part in sections:
        section = section and section_type(section, part)
        if section is Source:
            tree[part] = _source_keys(tree.get(part))
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            if section is None:  # else it is a wrong value in place of a section, which is reported as such
                mistakes.append(_unknown(key))
            return
    layer = {name: value}
    if key in FILE_KEYS:
        _anchor(layer, name, Path.cwd())
    tree |= _merge(tree, layer, section)


# ------------------------------------------------------------------------------------------------- validation
def _validate(tree: Tree, mistakes: list[Mistake]) -> Config:
    """A valid ``Config``: wrong values are reported and fall back to defaults, so that all checks can run."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        for problem in error.errors():
            mistakes.append(_explain(problem, is_shown=len(mistakes) < MAX_MISTAKES))
            _drop(tree, _whole(tuple(map(str, problem["loc"]))))
    return Config.model_validate(tree)


def _whole(loc: tuple[str, ...]) -> tuple[str, ...]:
    """The place of what has a default: a wrong value, or the source that it is a part of."""
    parts = (loc[:num] for num in range(1, len(loc)))
    return next((part for part in parts if Source in alternatives(field_type(".".join(part)))), loc)


def _drop(tree: Tree, loc: tuple[str, ...]) -> None:
    """Remove the value at ``loc``; inside a list or a scalar, the whole key."""
    for name in loc[:-1]:
        if not isinstance(tree.get(name), dict):
            tree.pop(name, None)
            return
        tree = tree[name]
    tree.pop(loc[-1], None)


def _explain(problem: ErrorDetails, *, is_shown: bool) -> Mistake:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":  # what it may mean takes a while to find
        return _unknown(key) if is_shown else Mistake(keys=(key,), line=format_value(key))
    rule, fix = rule_of(problem)
    if problem["type"] == "missing":
        return Mistake(keys=(key,), line=f"{key}: {rule}; {fix}")
    return _mistake(key, problem["input"], rule, fix or "see the field's description")


def _unknown(key: str) -> Mistake:
    known = nearest_key(key)
    return Mistake(
        keys=(key,), line=f"{format_value(key)}: unknown key; {f'did you mean {known}?' if known else 'remove it'}"
    )


def _mistake(key: str, value: object, rule: str, fix: str) -> Mistake:
    return Mistake(keys=(key,), line=f"{format_value(key)}={format_value(value)}: {rule}; {fix}")


def _touches(key: str, wrong: set[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in wrong)
