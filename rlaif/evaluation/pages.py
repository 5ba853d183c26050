"""Self-contained pages from the templates in this package; ``look.css`` is their common style.

Pages hold text from models and data files; everything except the figures, which are ours, is escaped. In case anything
slips through, their content security policy (``head.html.jinja``) allows styles and nothing else: no script runs, and
nothing is fetched or sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlaif.errors import redacted


def page(template: str, content: Mapping[str, Any], filters: Mapping[str, Callable[..., str]]) -> str:
    """``template`` filled with ``content``; a missing name is a programming error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_secrets,
    )
    environment.filters |= filters
    return environment.get_template(template).render(**content)


def _without_secrets(value: Any) -> Any:
    return redacted(value) if type(value) is str else value  # what is marked as safe is ours
