"""``rlaif data``: what a source holds, what it can be used as, and some of its rows as they will be used."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.arguments import FieldNames, named_fields
from actors.cli.console import console
from rlaif.config.source import Source
from rlaif.errors import UserError

if TYPE_CHECKING:
    from rlaif.data.excess import SourceRecord
    from rlaif.data.overview import Overview, Use
    from rlaif.records import Turn

MAX_TEXT_CHARS = 600  #: of one text that is shown
MAX_CAUSES = 10  #: that are listed
_INVISIBLE = ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")  #: general categories of characters


class UseName(StrEnum):
    """The names of ``rlaif.data.readers.READERS``, which is not imported to parse a command line."""

    PROMPTS = "prompts"
    PAIRS = "pairs"
    COMPARISONS = "comparisons"
    VOTES = "votes"


def data_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="a file, directory, pattern, URL or hf:NAME, with #ROWS")
    ],
    fields: FieldNames = None,
    use: Annotated[UseName | None, typer.Option("--as", help="try this use only; by default all are tried")] = None,
) -> None:
    """Show what a source holds, what it can be used as, and what is refused and why. Exits with 2 if it has no use."""
    from rlaif.data.overview import survey

    named = Source(path=source, **named_fields(fields)) if fields else source
    overview = survey(named) if use is None else survey(named, [use])
    _print(_head(overview))
    for each in overview.usable:
        _print(_use(each, overview))
    _print(_refused(overview))
    if not overview.usable:
        raise UserError(overview.stopped or f"{source}: not usable{'' if use is None else f' as {use}'}")
    _print(_rows(_richest(overview), overview.num_files > 1))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        console.print(line, highlight=False)


def _head(overview: Overview) -> Iterator[str]:
    yield visible(overview.source)
    for kind, num in overview.kinds.most_common():
        yield f"  {num:,} {'file' if num == 1 else 'files'}: {kind}"
    columns = visible(", ".join(f"`{name}`" for name in overview.columns))
    yield f"  {overview.num_rows:,} {'row' if overview.num_rows == 1 else 'rows'}" + (
        columns and f"; columns {columns}"
    )
    if overview.passed_over:
        from rlaif.data.files.sources import named

        yield f"  passed over: {visible(named(overview.passed_over))}"


def _use(use: Use, overview: Overview) -> Iterator[str]:
    yield ""
    yield f"usable as {use.name}: {use.reader.what} ({use.reader.keys})"
    yield f"  {use.num_usable:,} of {overview.num_rows:,} rows are usable, {use.num_quarantined:,} quarantined"
    for shape, num in use.shapes.most_common(MAX_CAUSES):
        yield f"  read from {visible(shape)}: {num:,}"
    causes = sorted(use.causes.values(), key=lambda cause: -cause.num)
    for cause in causes[:MAX_CAUSES]:
        file = "" if overview.num_files == 1 else f" of {visible(cause.file)}"
        yield f"  quarantined {cause.num:,}: {visible(cause.words)} (first: row {cause.row}{file})"
    if len(causes) > MAX_CAUSES:
        others = causes[MAX_CAUSES:]
        yield f"  quarantined for {len(others):,} other causes: {sum(cause.num for cause in others):,}"
    if use.num_repeated:
        yield f"  equal to an earlier row: {use.num_repeated:,}"
    if use.num_with_thoughts:
        yield f"  read without the thoughts of a message (`reasoning_content`): {use.num_with_thoughts:,}"
    if use.num_same:
        yield f"  pairs whose answers do not differ: {use.num_same:,}"


def _refused(overview: Overview) -> Iterator[str]:
    """One line for each use that a run would refuse."""
    yield ""
    for use in overview.uses:
        if use.refusal and not overview.stopped:
            file = f"{overview.source}: " if overview.num_files == 1 else ""
            yield f"not usable as {use.name}: {visible(use.refusal.removeprefix(file))}"


def _richest(overview: Overview) -> Use:
    """The use whose rows are shown: of those that take most of what any takes, the one that takes most of a row in."""
    most = max(use.num_usable for use in overview.usable)
    return next(use for use in overview.usable if 2 * use.num_usable >= most)


def _rows(use: Use, has_several_files: bool) -> Iterator[str]:
    yield ""
    yield f"the first {len(use.records)} as {use.name}:" if len(use.records) > 1 else f"as {use.name}:"
    for record in use.records:
        yield ""
        yield f"row {record.source_row}" + (f" of {visible(record.source_file)}" if has_several_files else "")
        for name, text in _texts(record):
            first, *more = shortened(visible(text)).split("\n")
            yield f"  {name}: {first}"
            yield from (f"  {' ' * len(name)}  {line}" for line in more)


def _texts(record: SourceRecord) -> Iterator[tuple[str, str]]:
    """What a record holds, by name, in the order in which it is read."""
    from rlaif.records import Comparison, PreferencePair, Prompt, ScoredAnswers

    if isinstance(record, ScoredAnswers):
        yield "question", record.question
        for answer in record.answers:
            yield f"{answer.votes:,} votes{', accepted' if answer.accepted else ''}", answer.text
    elif isinstance(record, Prompt):
        yield from _turns(record.turns)
    elif isinstance(record, PreferencePair):
        yield from _turns(record.prompt)
        yield from (("chosen", record.chosen), ("rejected", record.rejected))
    elif isinstance(record, Comparison):
        yield from _turns(record.prompt)
        yield from (("answer_1", record.answer_1), ("answer_2", record.answer_2))
        yield "gold", "none" if record.gold is None else f"{record.gold:g}"


def _turns(turns: tuple[Turn, ...]) -> Iterator[tuple[str, str]]:
    yield from ((turn.role, turn.text) for turn in turns)


def visible(text: str) -> str:
    """``text`` with the characters that a terminal obeys or does not show written out; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_shown(char) else char.encode("unicode_escape").decode() for char in text)


def _is_shown(char: str) -> bool:
    return char in "\n\t" or unicodedata.category(char) not in _INVISIBLE


def shortened(text: str) -> str:
    cut = len(text) - MAX_TEXT_CHARS
    return f"{text[:MAX_TEXT_CHARS]}... ({cut:,} more characters)" if cut > 0 else text
