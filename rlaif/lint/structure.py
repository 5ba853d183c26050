"""The lint of constitutions: rules of structure (C0..), and of meaning (C1.., in ``rlaif.lint.meaning``).

Errors make a constitution unusable: a file without errors loads. Warnings are for people to weigh.
Every rule carries an example that passes and one that fails; a test runs them all.

``harm_avoidance`` and ``helpfulness`` must be covered: without the first nothing is learned about harm, and without the
second the best answer to everything is a refusal. The other categories should be covered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import get_args

from pydantic import ValidationError

from rlaif.constitution.principles import (
    Category,
    Constitution,
    describe_mistake,
    mistakes_in,
    read_constitution,
)
from rlaif.lint.draft import TEXTS, Draft, Finding, PlacedMessage, Rule, draft_of, words
from rlaif.lint.meaning import MEANING

_Said = tuple[str, frozenset[str]]  #: a place, and the words there

NEEDED = ("harm_avoidance", "helpfulness")
#: Texts whose words overlap this much (Jaccard index, without fillers) say the same.
NEAR_EQUAL = 0.85
MAX_NEIGHBOURS = 200
FILLERS = frozenset(words("a an and the this that these those of to in is are be it its which choose please would"))
#: Words of prohibitions; a text without any of them asks for something.
FORBIDDING = frozenset(
    words(
        "no not nobody nothing none never neither nor without less least fewer avoid remove stop cannot don't doesn't"
    )
)


# ------------------------------------------------------------------------------------------- what pydantic sees
#: Fields whose mistakes have rules of their own; all other mistakes are of the shape.
KINDS = {"id": "id", "weight": "weight", "category_weights": "weight", "priority_weights": "weight"}


def _mistakes(draft: Draft, kind: str) -> Iterator[PlacedMessage]:
    try:
        Constitution.model_validate(draft.tree)
    except ValidationError as error:
        for problem in mistakes_in(error):
            place, field = _located(draft, problem["loc"])
            # Validators over several fields raise ValueError; what they check has rules of its own here.
            over_fields = problem["type"] == "value_error"
            if not over_fields and KINDS.get(field[0] if field else "", "shape") == kind:
                yield ".".join(filter(None, (place, *field))), describe_mistake(problem)


def _located(draft: Draft, loc: tuple[int | str, ...]) -> tuple[str, tuple[str, ...]]:
    """(the principle's place, or "" outside of them; the field) of a place in the file."""
    match loc:
        case ("principles", int(index), *field):
            place = draft.entries[index].place
        case field:
            place = ""
    return place, tuple(str(part) for part in field if part != "[key]")  # pydantic marks a wrong key of a mapping so


# --------------------------------------------------------------------------------------------------- duplicates
def _repeated_ids(draft: Draft) -> Iterator[PlacedMessage]:
    counts = Counter(entry.text("id") for entry in draft.entries if entry.text("id"))
    for entry in draft.entries:
        if counts[entry.text("id")] > 1:
            yield f"{entry.place}.id", f"{entry.text('id')} appears {counts[entry.text('id')]} times"


def _repeated_texts(draft: Draft) -> Iterator[PlacedMessage]:
    for field in TEXTS:
        said = [(entry.place, frozenset(words(entry.text(field))) - FILLERS) for entry in draft.entries]
        for place, same in _near_equal(said):
            yield f"{place}.{field}", f"says the same as {same}.{field}; drawn twice as often"


def _near_equal(said: Sequence[_Said]) -> Iterator[tuple[str, str]]:
    """Each place whose words are nearly those of an earlier one, and the first such.

    Texts that overlap so much share one of their rarest words, so each is compared with few others: with those of the
    same words, and with ``MAX_NEIGHBOURS`` more where all texts are made of a few words.
    """
    counts = Counter(word for _, own in said for word in own)
    by_word: dict[str, list[_Said]] = defaultdict(list)
    first: dict[frozenset[str], str] = {}
    for place, own in said:
        rarest = sorted(own, key=lambda word: (counts[word], word))[: int((1 - NEAR_EQUAL) * len(own)) + 1]
        others = islice((other for word in rarest for other in by_word[word]), MAX_NEIGHBOURS)
        near = (other for other, its in others if len(own & its) / len(own | its) >= NEAR_EQUAL)
        if same := first.get(own) or next(near, None):
            yield place, same
        if own:
            first.setdefault(own, place)
        for word in rarest:
            by_word[word].append((place, own))


# --------------------------------------------------------------------------------------------------- usefulness
def _usable(draft: Draft) -> Iterator[PlacedMessage]:
    for entry in draft.entries:
        if bool(entry.text("critique_request")) != bool(entry.text("revision_request")):
            yield entry.place, "critique_request and revision_request go together; give both or neither"
        elif not entry.texts:
            yield entry.place, "usable in no step; give critique_request and revision_request, or comparison"


def _covered(draft: Draft) -> set[str]:
    return {entry.text("category") for entry in draft.entries}


def _needed_categories(draft: Draft) -> Iterator[PlacedMessage]:
    for category in NEEDED:
        if category not in _covered(draft):
            yield "principles", f"none has category {category}, which every constitution needs"


def _other_categories(draft: Draft) -> Iterator[PlacedMessage]:
    missing = [c for c in get_args(Category) if c not in NEEDED and c not in _covered(draft)]
    if missing:
        yield "principles", f"none has category {', '.join(missing)}"


def _positive(draft: Draft) -> Iterator[PlacedMessage]:
    asked = [entry.text(field) for entry in draft.entries for field in ("revision_request", "comparison")]
    if not any(text and FORBIDDING.isdisjoint(words(text)) for text in asked):
        yield (
            "principles",
            "all of them only forbid, so refusing everything is best; add one that asks for something good",
        )


def _steps(draft: Draft) -> Iterator[PlacedMessage]:
    for field, step in (("revision_request", "revision"), ("comparison", "labelling")):
        if not any(entry.text(field) for entry in draft.entries):
            yield "principles", f"none can be used for {step} (no {field})"


STRUCTURE = (
    Rule(
        code="C001",
        severity="error",
        title="keys are known, required keys are present, values have the right type",
        check=partial(_mistakes, kind="shape"),
        passing="{name: n, version: '1', principles: [{id: a, category: honesty, source: s, comparison: x}]}",
        failing="{name: n, version: '1', principles: [{id: a, category: truth, source: s, comparision: x}]}",
    ),
    Rule(
        code="C002",
        severity="error",
        title="every principle has an id of lower-case letters, digits and underscores",
        check=partial(_mistakes, kind="id"),
        passing="principles: [{id: no_harm}]",
        failing="principles: [{id: No harm}, {category: honesty}]",
    ),
    Rule(
        code="C003",
        severity="error",
        title="every id is unique",
        check=_repeated_ids,
        passing="principles: [{id: a}, {id: b}]",
        failing="principles: [{id: a}, {id: a}]",
    ),
    Rule(
        code="C004",
        severity="error",
        title="no two principles say the same in the same field",
        check=_repeated_texts,
        passing='principles: [{comparison: "Which answer is kinder?"}, {comparison: "Which answer is truer?"}]',
        failing='principles: [{comparison: "Which answer is kinder?"}, {comparison: "Choose the kinder answer."}]',
    ),
    Rule(
        code="C005",
        severity="error",
        title="weights are positive numbers, of principles and of known categories",
        check=partial(_mistakes, kind="weight"),
        passing="{category_weights: {honesty: 2}, principles: [{weight: 0.5}]}",
        failing="{category_weights: {style: 2}, principles: [{weight: 0}]}",
    ),
    Rule(
        code="C006",
        severity="error",
        title="every principle is usable in at least one step",
        check=_usable,
        passing="principles: [{comparison: x}, {critique_request: x, revision_request: y}]",
        failing="principles: [{source: s}, {critique_request: x}]",
    ),
    Rule(
        code="C007",
        severity="error",
        title="harm_avoidance and helpfulness are covered",
        check=_needed_categories,
        passing="principles: [{category: harm_avoidance}, {category: helpfulness}]",
        failing="principles: [{category: harm_avoidance}, {category: honesty}]",
    ),
    Rule(
        code="C008",
        severity="warning",
        title="the other categories are covered",
        check=_other_categories,
        passing="principles: [{category: honesty}, {category: autonomy_and_rights}, {category: childrens_safety}, "
        "{category: thoughtfulness}, {category: edge_cases}]",
        failing="principles: [{category: honesty}]",
    ),
    Rule(
        code="C009",
        severity="error",
        title="at least one principle asks for something good",
        check=_positive,
        passing='principles: [{comparison: "Which answer is less harmful?"}, {comparison: "Which answer is kinder?"}]',
        failing='principles: [{comparison: "Which answer is less harmful?"}]',
    ),
    Rule(
        code="C010",
        severity="warning",
        title="both steps have principles: revision and labelling",
        check=_steps,
        passing="principles: [{critique_request: x, revision_request: y}, {comparison: z}]",
        failing="principles: [{comparison: z}]",
    ),
)
RULES = (*STRUCTURE, *MEANING)


def lint(name_or_path: str) -> tuple[Draft, tuple[Finding, ...]]:
    """The draft in a constitution's file, and all findings of structure and of words.

    Raises ConfigError only when the file cannot be read at all.
    """
    path, tree = read_constitution(name_or_path)
    draft = draft_of(tree, str(path))
    return draft, findings(draft)


def findings(draft: Draft) -> tuple[Finding, ...]:
    return tuple(finding for rule in RULES for finding in rule.findings(draft))
