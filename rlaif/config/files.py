"""Configuration files and overrides become one ``Config``; every mistake is shown at once.

Layers, weakest first: the defaults in ``config``, what ``extends:`` names (relative to the file in which it
stands), the file itself, dotted overrides ``a.b=c``. Sections merge key by key, custom resources included; a
list is replaced.

Whose directory a relative path belongs to: ``constitution``, lexicon, examples and templates to the file that names
them (to the working directory in an override), so that a preset can be used from anywhere; data sources and
``run_dir`` always to the working directory, because they belong to whoever runs it.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rlaif.config.contradictions import Mistake, contradictions, flatten, shown
from rlaif.config.schema import Config, Section
from rlaif.config.strict_yaml import StrictLoader, where, why
from rlaif.errors import ConfigError

CARRIED = re.compile(r"-carried-[0-9a-f]{16}\.\w+$")
#: small files that belong to the configuration file that names them
FILE_KEYS = (
    "constitution",
    "miniature.lexicon",
    "critique_revision.examples",
    "labelling.examples",
    "labelling.template",
)
Tree = dict[str, Any]


# ----------------------------------------------------------------------------------------------- public verbs
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in ``path`` with ``overrides`` on top.

    Raises ConfigError with one line for every mistake: in the files, in the overrides, in single values, and
    between values that contradict each other.
    """
    mistakes: list[Mistake] = []
    tree = _read_file(Path(path), (), mistakes)
    complete = not mistakes
    for override in overrides:
        _apply(tree, override, mistakes)
    config = _validate(tree, mistakes)
    wrong = {key for mistake in mistakes for key in mistake.keys}
    # A contradiction that rests on a default in place of a wrong value would only confuse.
    if complete:
        mistakes += [c for c in contradictions(config) if not any(_touches(k, wrong) for k in c.keys)]
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistake.line for mistake in mistakes)))
    return config


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML; loading it gives an equal ``Config``."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(a: Config, b: Config) -> list[str]:
    """Dotted keys whose values differ, in the order of the fields.

    Of files that travelled with a job (``carried_name``) the names count, not the directories: they lie in another
    place each time.
    """
    left, right = _placeless(flatten(a)), _placeless(flatten(b))
    return [key for key in left if left[key] != right[key]]


def _placeless(flat: Tree) -> Tree:
    carried = {key: Path(flat[key]).name for key in FILE_KEYS if flat[key] and CARRIED.search(flat[key])}
    return {**flat, **carried}


def carried_name(name: str, content: bytes, suffix: str) -> str:
    """What a file is called that travels with a job: a name that changes with its content."""
    return f"{name}-carried-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"


# ------------------------------------------------------------------------------------------- files and layers
def _read_file(path: Path, chain: tuple[Path, ...], mistakes: list[Mistake]) -> Tree:
    """One file merged over what it extends; ``chain`` holds the files that led here, to see a cycle."""
    if path.resolve() in chain:
        circle = " -> ".join(p.name for p in (*chain[chain.index(path.resolve()) :], path))
        mistakes.append(_mistake("extends", path.name, f"the files extend each other in a circle ({circle})", "cut it"))
        return {}
    tree = _parse_file(path, chain, mistakes)
    base = tree.pop("extends", None)
    _anchor_files(tree, path.parent)
    if base is None:
        return tree
    if not isinstance(base, str):
        mistakes.append(_mistake("extends", base, "must be one file name", f"correct it in {path}"))
        return tree
    return _merge(_read_file(path.parent / base, (*chain, path.resolve()), mistakes), tree)


def _parse_file(path: Path, chain: tuple[Path, ...], mistakes: list[Mistake]) -> Tree:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.YAMLError as error:
        mistakes.append(Mistake(keys=(), line=f"{path}{where(error)}: not YAML: {why(error)}; correct the file"))
    except UnicodeDecodeError:
        mistakes.append(Mistake(keys=(), line=f"{path}: not UTF-8 text; save it as UTF-8"))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        named_by = f"extends={path.name} in {chain[-1]}: " if chain else ""
        mistakes.append(Mistake(keys=(), line=f"{named_by}{path}: {reason}; give an existing YAML file"))
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
        inner = _section_type(section, str(key))
        if inner is not None and value is None:
            continue
        cleaned[str(key)] = _without_empty_sections(value, inner) if inner and isinstance(value, dict) else value
    return cleaned


def _merge(base: Tree, top: Tree) -> Tree:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _anchor_files(tree: Tree, directory: Path) -> None:
    for key in FILE_KEYS:
        *sections, name = key.split(".")
        node: Any = tree
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if isinstance(node, dict):
            _anchor(node, name, directory)


def _anchor(tree: Tree, name: str, directory: Path) -> None:
    """Make the file in ``tree[name]`` absolute; a name without a suffix is a shipped one, and stays."""
    value = tree.get(name)
    if isinstance(value, str) and Path(value).suffix:
        tree[name] = str((directory / Path(value).expanduser()).resolve())


# -------------------------------------------------------------------------------------------------- overrides
def _apply(tree: Tree, override: str, mistakes: list[Mistake]) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        mistakes.append(Mistake(keys=(), line=f"{override}: not an override; write section.key=value"))
        return
    try:
        value = yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError as error:
        mistakes.append(_mistake(key, text, f"not a YAML value: {why(error)}", "quote it"))
        return
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):  # a wrong value where a section belongs: reported as what it is
            return
    layer = {name: value}
    if key in FILE_KEYS:
        _anchor(layer, name, Path.cwd())
    tree |= _merge(tree, layer)


# ------------------------------------------------------------------------------------------------- validation
def _validate(tree: Tree, mistakes: list[Mistake]) -> Config:
    """A valid ``Config``: wrong values are reported and fall back to defaults, so that all checks can run."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        for problem in error.errors():
            mistakes.append(_explain(problem))
            _drop(tree, tuple(map(str, problem["loc"])))
    return Config.model_validate(tree)


def _drop(tree: Tree, loc: tuple[str, ...]) -> None:
    """Remove what ``loc`` points at; of a list or a scalar, the whole key."""
    for name in loc[:-1]:
        if not isinstance(tree.get(name), dict):
            tree.pop(name, None)
            return
        tree = tree[name]
    tree.pop(loc[-1], None)


def _explain(problem: Any) -> Mistake:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = _nearest(key)
        return Mistake(keys=(key,), line=f"{key}: unknown key; {f'did you mean {known}?' if known else 'remove it'}")
    rule, fix = _rule(problem["type"], problem.get("ctx", {}))
    return _mistake(key, problem["input"], rule or problem["msg"], fix)


def _rule(kind: str, ctx: Mapping[str, Any]) -> tuple[str | None, str]:
    """What a pydantic error says, in plain words, and what to do."""
    limits = {"greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt")}
    limits |= {"less_than_equal": ("at most", "le"), "less_than": ("less than", "lt")}
    if kind in limits:
        words, name = limits[kind]
        return f"must be {words} {ctx[name]:g}", "change the number"
    if kind == "literal_error":
        return f"must be one of {ctx['expected']}".replace("'", ""), "choose one of them"
    kinds = {
        "int": ("must be a whole number", "write one such as 8"),
        "float": ("must be a number", "write one such as 0.5"),
        "finite": ("must be a finite number", "write one such as 0.5"),
        "bool": ("must be true or false", "write one of the two"),
        "string": ("must be text", "put it in quotes"),
        "tuple": ("must be a list", "write [a, b]"),
        "dict": ("must be keys and values", "write {name: number}"),
        "model": ("must be a section", "indent its keys below it"),
    }
    return kinds.get(kind.split("_")[0], (None, "see the field's description"))


def _mistake(key: str, value: object, rule: str, fix: str) -> Mistake:
    return Mistake(keys=(key,), line=f"{key}={shown(value)}: {rule}; {fix}")


def _touches(key: str, wrong: set[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in wrong)


# ------------------------------------------------------------------------------------------------- known keys
def _section_type(section: type[Section], name: str) -> type[Section] | None:
    field = section.model_fields.get(name)
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def known_keys(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key, sections included."""
    for name in section.model_fields:
        yield prefix + name
        inner = _section_type(section, name)
        if inner is not None:
            yield from known_keys(inner, f"{prefix}{name}.")


def _nearest(key: str) -> str | None:
    """The known key that was probably meant: misspelt here, at home elsewhere, or near as a whole."""
    known = list(known_keys())
    section, _, name = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    elsewhere = [k for k in known if k.rpartition(".")[2] == name]
    for near in difflib.get_close_matches(name, siblings, n=1, cutoff=0.7):
        return siblings[near]
    whole = difflib.get_close_matches(key, elsewhere or known, n=1, cutoff=0.0 if elsewhere else 0.6)
    return whole[0] if whole else None
