"""The public JSON shapes of constitutions, for users who bring them (none are shipped).

- The paper's critique and revision: ``{NAME: {"prompt": text or [text, ...], "edit_request": text}}``. Several texts of
  ``prompt`` are parts of one critique request; NAME becomes the principle's id.
- The paper's comparisons: ``[text, ...]``. They become ``comparison_1``, ``comparison_2``...
- LangChain: ``[{"name", "critique_request", "revision_request"}, ...]``, or such objects by name.
- llm-swarm: ``{"constitutions": [{"critic", "revision"}, ...]}``; its ``system_chat`` and ``system_prompt``, which are
  examples and not principles, are left out.
- Constitutional-Evals (schema 1.1 and 1.2): ``{"criteria": [text or {"comparative": text}, ...], "guidelines": [text,
  ...]}``. Criteria become comparisons. Guidelines, which are about conflicts and edge cases, become comparisons of the
  category ``edge_cases`` and the priority ``guidelines``. ``voices`` say the criteria again, and are left out.
- An object with ``principles`` is a constitution of ours, written as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.constitution.public_texts import (
    EXAMPLES,
    PrincipleTree,
    clean_text,
    comparison_of,
    id_of,
    principle,
    refuse_transcript,
    required,
)
from rlaif.errors import ConfigError

#: What critique request and revision request are called, in each shape.
REQUEST_KEYS = (("prompt", "edit_request"), ("critique_request", "revision_request"), ("critic", "revision"))
FEW_SHOT_KEYS = {"corrects", "incorrects", "role", "messages", "chosen", "rejected"}


def read_json(file: Path, text: str) -> Any:
    """The contents of a JSON file. Raises ConfigError naming line or key."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(file, pairs))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}, line {error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not JSON that can be read: {error}") from None


def _object(file: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key to appear twice; the first of its values would be lost silently."""
    counts = Counter(name for name, _ in pairs)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise ConfigError(f"{file}: {repeated[0]}: appears twice")
    return dict(pairs)


def is_ours(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("principles"), list)


def title_of(content: Any) -> tuple[str, str] | None:
    """The name and the version that a file of Constitutional-Evals gives itself; None for other shapes."""
    if not isinstance(content, dict) or "criteria" not in content:
        return None
    name, version = content.get("id"), content.get("version")
    return (name, version) if isinstance(name, str) and isinstance(version, str) and name and version else None


def json_principles(file: Path, content: Any) -> Iterator[PrincipleTree]:
    """The principles in a JSON file's ``content``. Raises ConfigError naming the key or row."""
    if is_ours(content):
        raise ConfigError(f"{file}: a whole constitution, which cannot be combined with other files; give it alone")
    if isinstance(content, list):
        refuse_transcript(file, (entry if isinstance(entry, str) else "" for entry in content))
        for row, entry in enumerate(content, start=1):
            yield _of_list(file, f"row {row}", row, entry)
    elif not isinstance(content, dict):
        raise ConfigError(f"{file}: must hold an object of critique and revision requests, or a list of comparisons")
    elif isinstance(content.get("constitutions"), list):
        for number, entry in enumerate(content["constitutions"], start=1):
            yield _requests(file, f"constitutions.{number - 1}", number, entry)
    elif isinstance(content.get("criteria"), list):
        yield from _criteria(file, content)
    else:
        for number, (name, entry) in enumerate(content.items(), start=1):
            yield _requests(file, name, number, entry, name)


def _of_list(file: Path, place: str, row: int, entry: Any) -> PrincipleTree:
    if isinstance(entry, dict):
        return _requests(file, place, row, entry)
    text = required(file, place, clean_text(file, place, entry))
    return principle(f"comparison_{row}", f"{file.name}: {row}", comparison=text)


def _requests(file: Path, place: str, number: int, entry: Any, name: str | None = None) -> PrincipleTree:
    """One principle to revise by."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{file}: {place}: must be an object with {_known_keys()}")
    if FEW_SHOT_KEYS & set(entry):
        raise ConfigError(f"{file}: {place}: is a few-shot example, not a principle; {EXAMPLES}")
    critique, revision = next((keys for keys in REQUEST_KEYS if set(keys) & set(entry)), (None, None))
    if critique is None or revision is None:
        raise ConfigError(f"{file}: {place}: must have {_known_keys()}")
    if unknown := sorted(set(entry) - {critique, revision, "name"}):
        raise ConfigError(f"{file}: {place}.{unknown[0]}: unknown key; there are {critique} and {revision}")
    named = name if name is not None else _name(file, place, entry)
    return principle(
        f"principle_{number}" if named is None else id_of(named, number),
        f"{file.name}: {place if named is None else named}",
        critique_request=_request(file, f"{place}.{critique}", entry.get(critique)),
        revision_request=_request(file, f"{place}.{revision}", entry.get(revision)),
    )


def _known_keys() -> str:
    return ", or ".join(" and ".join(keys) for keys in REQUEST_KEYS)


def _name(file: Path, place: str, entry: Mapping[str, Any]) -> str | None:
    return clean_text(file, f"{place}.name", entry["name"]) if "name" in entry else None


def _request(file: Path, place: str, value: Any) -> str:
    """A request is one text, or a list of its parts."""
    if not isinstance(value, list):
        return required(file, place, clean_text(file, place, value))
    parts = [clean_text(file, f"{place}.{i}", part) for i, part in enumerate(value)]
    clean_text(file, place, "\n".join(value))  # a transcript may be in parts
    return required(file, place, "\n".join(part for part in parts if part))


def _criteria(file: Path, content: Mapping[str, Any]) -> Iterator[PrincipleTree]:
    licence = content.get("license")
    suffix = f", {licence}" if isinstance(licence, str) else ""
    for number, criterion in enumerate(content["criteria"], start=1):
        text = criterion.get("comparative") if isinstance(criterion, dict) else criterion
        place = f"criteria.{number - 1}" + (".comparative" if isinstance(criterion, dict) else "")
        source = f"{file.name}: criterion {number}{suffix}"
        yield principle(f"criterion_{number}", source, comparison=comparison_of(file, place, text))
    guidelines = content.get("guidelines") or []
    if not isinstance(guidelines, list):
        raise ConfigError(f"{file}: guidelines: must be a list of texts")
    for number, guideline in enumerate(guidelines, start=1):
        comparison = comparison_of(file, f"guidelines.{number - 1}", guideline)
        made = principle(f"guideline_{number}", f"{file.name}: guideline {number}{suffix}", comparison=comparison)
        yield {**made, "category": "edge_cases", "priority": "guidelines"}
