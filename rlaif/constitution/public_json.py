"""The public JSON shapes of Constitutional AI's prompt files, for users who bring them (none are shipped).

- Critique and revision: ``{NAME: {"prompt": [text, ...], "edit_request": text}}``. The texts of ``prompt`` are parts of
  one critique request; NAME becomes the principle's id.
- Comparisons: ``[text, ...]``. They become ``comparison_1``, ``comparison_2``...
- An object with ``principles`` is a constitution of ours, written as JSON.

Labels that our templates add themselves ("Critique Request:", "Revision:", "Options:"...) are stripped from both ends.
The shapes have no categories: every principle gets ``harm_avoidance``, the axis of the paper's principles, with weight
1 and its file as source. ``rlaif constitution import`` writes YAML in which all of this can be corrected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlaif.errors import ConfigError

CATEGORY = "harm_avoidance"
LEADING_LABEL = re.compile(r"^\s*(?:critique|revision)\s?(?:request)?:\s*", re.IGNORECASE)
TRAILING_LABEL = re.compile(r"\s*\b(?:critique|revision|options):\s*$", re.IGNORECASE)


def tree_of(files: Sequence[Path]) -> Any:
    """The constitution in one or more JSON files, as its YAML would hold it; not validated.

    Raises ConfigError naming file and key.
    """
    contents = {file: _read(file) for file in files}
    if len(files) == 1 and _is_ours(contents[files[0]]):
        return contents[files[0]]
    return {
        "name": "_".join(file.stem for file in files),
        "version": "1",
        "principles": [principle for file in files for principle in _principles(file, contents[file])],
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _object(file, pairs))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}, line {error.lineno}: not JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def _object(file: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key to appear twice; the first of its values would be lost silently."""
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{file}: {repeated[0]}: appears twice")
    return dict(pairs)


def _is_ours(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("principles"), list)


def _principles(file: Path, content: Any) -> Iterator[dict[str, Any]]:
    if _is_ours(content):
        raise ConfigError(f"{file}: a whole constitution, which cannot be combined with other files; give it alone")
    if isinstance(content, dict):
        yield from (_revising(file, name, entry) for name, entry in content.items())
    elif isinstance(content, list):
        yield from (_comparing(file, row, text) for row, text in enumerate(content, start=1))
    else:
        raise ConfigError(f"{file}: must hold an object of critique and revision requests, or a list of comparisons")


def _revising(file: Path, name: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ConfigError(f"{file}: {name}: must be an object with prompt and edit_request")
    if unknown := sorted(set(entry) - {"prompt", "edit_request"}):
        raise ConfigError(f"{file}: {name}.{unknown[0]}: unknown key; there are prompt and edit_request")
    prompt = entry.get("prompt")
    if not isinstance(prompt, list) or not prompt:
        raise ConfigError(f"{file}: {name}.prompt: must be a list of texts")
    parts = [_text(file, f"{name}.prompt.{i}", part) for i, part in enumerate(prompt)]
    return {
        "id": re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"),
        "category": CATEGORY,
        "source": f"{file.name}: {name}",
        "critique_request": _required(file, f"{name}.prompt", "\n".join(part for part in parts if part)),
        "revision_request": _required(
            file, f"{name}.edit_request", _text(file, f"{name}.edit_request", entry.get("edit_request"))
        ),
    }


def _comparing(file: Path, row: int, text: Any) -> dict[str, Any]:
    return {
        "id": f"comparison_{row}",
        "category": CATEGORY,
        "source": f"{file.name}: {row}",
        "comparison": _required(file, f"row {row}", _text(file, f"row {row}", text)),
    }


def _text(file: Path, key: str, value: Any) -> str:
    """``value`` without the labels around it; empty when there is nothing else, as in a bare "Critique:"."""
    if not isinstance(value, str):
        raise ConfigError(f"{file}: {key}: must be text")
    return TRAILING_LABEL.sub("", LEADING_LABEL.sub("", value)).strip()


def _required(file: Path, key: str, text: str) -> str:
    if not text:
        raise ConfigError(f"{file}: {key}: is empty")
    return text
