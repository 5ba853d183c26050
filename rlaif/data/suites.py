"""Prompts of public test suites, in the shapes in which they are published.

=====================  ==================================================  ==========================================
suite                  columns that are read                               source
=====================  ==================================================  ==========================================
xstest                 ``prompt``, ``type``, ``label`` where it is given   Röttger et al. (arXiv 2308.01263)
strongreject           ``forbidden_prompt``, ``category``                  Souly et al. (arXiv 2402.10260)
simple_safety_tests    ``prompts_final``, ``harm_area``                    Vidgen et al. (arXiv 2311.08370)
harmbench              ``Behavior``, ``ContextString``,                    Mazeika et al. (arXiv 2402.04249)
                       ``SemanticCategory``
=====================  ==================================================  ==========================================

Every prompt asks for harm, except XSTest's safe ones. In its files without a ``label``, the types of unsafe prompts
begin with ``contrast_``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from rlaif.config.source import RowLimits, Source
from rlaif.data.fields import is_given, require_text, trim
from rlaif.data.mapped_fields import read_mapped
from rlaif.data.rows import BadRow, Fields, Quarantine, SourceRow
from rlaif.errors import format_value
from rlaif.ids import suite_id
from rlaif.records import Axis, SuiteName, SuitePrompt, Turn

CONTRAST = "contrast_"  #: begins the types of XSTest's unsafe prompts
#: Types of XSTest's prompts that ask for nothing harmful.
SAFE_TYPES = frozenset(
    (
        *("homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions", "historical_events"),
        *("real_group_nons_discr", "nons_group_real_discr", "privacy_public", "privacy_fictional"),
    )
)
_LABELS: Mapping[str, Axis] = {"safe": "helpful", "unsafe": "red_team"}


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Which columns hold the prompt and its category, what its text is, and whether it asks for harm."""

    prompt: str
    category: str
    axis: Callable[[Fields], Axis] = lambda fields: "red_team"
    context: str | None = None


def read_suite(suite: SuiteName, source: Source, quarantine: Quarantine, limits: RowLimits) -> Iterator[SuitePrompt]:
    """Stream the prompts of a suite; a bad row goes to ``quarantine``. Raises DataError as ``read_prompts`` does."""
    return read_mapped(source, partial(parse_suite_prompt, suite=suite), quarantine, limits)


def parse_suite_prompt(row: SourceRow, suite: SuiteName) -> SuitePrompt:
    """The prompt in one row. Raises BadRow."""
    shape = _SHAPES[suite]
    text = trim(require_text(row.fields, shape.prompt))
    if shape.context and is_given(row.fields, shape.context):
        text = f"{trim(require_text(row.fields, shape.context))}\n\n---\n\n{text}"
    turns = (Turn(role="human", text=text),)
    return SuitePrompt(
        id=suite_id(suite, row.id_of(turns)),
        source_file=row.file,
        source_row=row.number,
        axis=shape.axis(row.fields),
        turns=turns,
        suite=suite,
        category=trim(require_text(row.fields, shape.category)).removeprefix(CONTRAST),
    )


def _xstest_axis(fields: Fields) -> Axis:
    if not is_given(fields, "label"):
        return _axis_of_type(require_text(fields, "type"))
    label = require_text(fields, "label")
    if label not in _LABELS:
        raise BadRow(f"field `label` must be safe or unsafe, not {format_value(label)}")
    return _LABELS[label]


def _axis_of_type(type: str) -> Axis:
    """Raises BadRow for a type that is not XSTest's: whether its prompts are safe must not be guessed."""
    if type.startswith(CONTRAST):
        return "red_team"
    if type in SAFE_TYPES:
        return "helpful"
    raise BadRow(f"field `type` is {format_value(type)}, which is not XSTest's; say safe or unsafe in a field `label`")


_SHAPES: Mapping[SuiteName, _Shape] = {
    "xstest": _Shape(prompt="prompt", category="type", axis=_xstest_axis),
    "strongreject": _Shape(prompt="forbidden_prompt", category="category"),
    "simple_safety_tests": _Shape(prompt="prompts_final", category="harm_area"),
    # as HarmBench itself puts a behaviour after its context
    "harmbench": _Shape(prompt="Behavior", category="SemanticCategory", context="ContextString"),
}
