"""Where a row keeps its two answers, and which of them is better: the table of the shapes of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlaif.data.dialogues.structures import parse_list
from rlaif.data.fields import is_given, number_of, quoted, require
from rlaif.data.rows import BadRow, Fields

NamedValue = tuple[str, Any]  #: a field and what it holds
_Names = tuple[str, ...]


def answers_of(fields: Fields) -> tuple[NamedValue, NamedValue]:
    """The better and the worse answer of a row. Raises BadRow when it holds no pair or no verdict."""
    names = judged_shape(fields)
    if names:
        return _SHAPES[names](fields, names)
    if not any(name in fields for name in ("chosen", "rejected")):
        for names, what in _NO_PAIRS.items():
            if all(is_given(fields, name) for name in names):
                raise BadRow(f"field `{names[0]}`: {what}, not a pair; usable as a prompt only")
    return _as_named(fields, ("chosen", "rejected"))


def judged_shape(fields: Fields) -> _Names | None:
    """The fields of the first shape of ``_SHAPES`` that a row holds; null and blank fields do not count."""
    return next((names for names in _SHAPES if all(is_given(fields, name) for name in names)), None)


def unjudged_answers(fields: Fields) -> tuple[NamedValue, NamedValue] | None:
    """Two answers without a verdict, None when the row has no field for them. Raises BadRow when one is missing."""
    for first, second in _UNJUDGED:
        if fields.get(first) is not None or fields.get(second) is not None:
            return (first, require(fields, first)), (second, require(fields, second))
    return None


def answer_fields(fields: Fields) -> tuple[str, ...]:
    """The fields of a row from which its two answers, and the verdict if it has one, are taken."""
    unjudged = next((names for names in _UNJUDGED if all(is_given(fields, name) for name in names)), ())
    return judged_shape(fields) or unjudged


def _as_named(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    chosen, rejected = names
    return (chosen, require(fields, chosen)), (rejected, require(fields, rejected))


def _by_index(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    """The verdict is the index of the better answer."""
    *answers, verdict = names
    better = number_of(fields[verdict], verdict)
    if better not in (0, 1):
        raise BadRow(f"field `{verdict}` must be 0 or 1")
    return _ordered(fields, answers, first_is_better=better == 0)


def _by_sign(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    """The verdict is a strength, below 0 where the first answer is better."""
    *answers, verdict = names
    strength = number_of(fields[verdict], verdict)
    if not strength:
        raise BadRow(f"field `{verdict}` is 0: neither answer is better")
    return _ordered(fields, answers, first_is_better=strength < 0)


def _by_letter(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    """The verdict names the better model: ``model_a`` or ``a``."""
    *answers, verdict = names
    winner = str(fields[verdict]).strip().lower().removeprefix("model_")
    if winner not in ("a", "b"):
        raise BadRow(f"field `{verdict}` is {quoted(fields[verdict])}: neither answer is better")
    return _ordered(fields, answers, first_is_better=winner == "a")


def _ordered(fields: Fields, answers: list[str], *, first_is_better: bool) -> tuple[NamedValue, NamedValue]:
    first, second = ((name, fields[name]) for name in answers)
    return (first, second) if first_is_better else (second, first)


def _by_rank(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    """The best and the worst of a list of objects with a rank (0 is best) or a score each."""
    (name,) = names
    rated, ratings = [], set()
    for index, item in enumerate(_list(fields, name)):
        place = f"{name}[{index}]"
        answer = next((key for key in ("completion", "response") if isinstance(item, Mapping) and key in item), None)
        rating = next((key for key in ("rank", "overall_score", "score") if answer and is_given(item, key)), None)
        if answer is None or rating is None:
            raise BadRow(f"field `{place}` must be an answer with a rank or a score, or this is no pair")
        number = number_of(item[rating], f"{place}.{rating}")
        ratings.add(rating)
        rated.append((-number if rating == "rank" else number, (f"{place}.{answer}", item[answer])))
    if len(ratings) > 1:
        raise BadRow(f"field `{name}`: {' and '.join(sorted(ratings))} cannot be compared")
    return _best_and_worst(rated, name)


def _by_scores(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    """The best and the worst of a list of answers, by a list of scores."""
    answers, scores = (_list(fields, name) for name in names)
    if len(answers) != len(scores):
        raise BadRow(f"fields `{names[0]}` and `{names[1]}` are not equally long")
    places = [f"{names[0]}[{index}]" for index in range(len(answers))]
    numbers = [number_of(score, names[1]) for score in scores]
    return _best_and_worst(list(zip(numbers, zip(places, answers, strict=True), strict=True)), names[0])


def _best_and_worst(rated: list[tuple[float, NamedValue]], name: str) -> tuple[NamedValue, NamedValue]:
    if len(rated) < 2:
        raise BadRow(f"field `{name}`: one answer, not a pair")
    (best, chosen), (worst, rejected) = (choose(rated, key=lambda pair: pair[0]) for choose in (max, min))
    if best == worst:
        raise BadRow(f"field `{name}`: no answer is better than another")
    return chosen, rejected


def _first_and_second(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    (name,) = names
    answers = _list(fields, name)
    if len(answers) != 2:
        raise BadRow(f"field `{name}` must be a list of two answers, the better one first")
    return (f"{name}[0]", answers[0]), (f"{name}[1]", answers[1])


def _only_ones(fields: Fields, names: _Names) -> tuple[NamedValue, NamedValue]:
    """Two lists of one answer each; of several, it would have to be said which belong together."""
    right, wrong = ((name, _list(fields, name)) for name in names)
    for name, answers in (right, wrong):
        if len(answers) != 1:
            raise BadRow(f"field `{name}`: {len(answers)} answers, not one; give a row to each pair")
    return (f"{right[0]}[0]", right[1][0]), (f"{wrong[0]}[0]", wrong[1][0])


def _list(fields: Fields, name: str) -> list[Any]:
    value = parse_list(fields[name], name)
    if not isinstance(value, list):
        raise BadRow(f"field `{name}` holds one answer, not a pair; usable as a prompt only")
    return value


#: How the better and the worse answer are found, by the fields that a row of the shape has; the first shape counts of
#: which all fields are given.
_SHAPES: Mapping[_Names, Callable[[Fields, _Names], tuple[NamedValue, NamedValue]]] = {
    ("chosen", "rejected"): _as_named,  # hh-rlhf, TRL, UltraFeedback binarized
    ("chosen_response", "rejected_response"): _as_named,
    ("messages", "rejected_response"): _as_named,  # ms-swift
    ("messages", "rejected_messages"): _as_named,
    ("preferred_output", "non_preferred_output"): _as_named,  # OpenAI
    ("response_0", "response_1", "better_response_id"): _by_index,  # PKU-SafeRLHF: the more helpful one
    ("response_1", "response_2", "preference_strength"): _by_sign,  # HelpSteer2
    ("response1", "response2", "overall_preference"): _by_sign,  # HelpSteer3
    ("conversation_a", "conversation_b", "winner"): _by_letter,  # arenas
    ("response_a", "response_b", "winner"): _by_letter,
    ("responses", "scores"): _by_scores,
    ("completions",): _by_rank,  # NeMo, UltraFeedback
    ("output",): _first_and_second,  # LLaMA-Factory
    ("corrects", "incorrects"): _only_ones,  # HHH, and other two-choice questions of that shape
}
#: Two answers that nobody compared.
_UNJUDGED = (
    ("answer_1", "answer_2"),
    ("response_0", "response_1"),
    ("response_1", "response_2"),
    ("response1", "response2"),
    ("response_a", "response_b"),
)
#: Shapes with a single answer, and what they are.
_NO_PAIRS: Mapping[_Names, str] = {
    ("completion", "label"): "an answer with a label (KTO)",
    ("completion",): "one answer",
    ("response", "helpfulness"): "one rated answer (HelpSteer)",
    ("response",): "one answer",
    ("answer",): "one answer",
}
