"""``rlaif constitution``: lint one, compare two, or import the paper's public files as YAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.console import console
from rlaif.errors import UserError

if TYPE_CHECKING:
    from rlaif.constitution.diff import Change, ConstitutionDiff
    from rlaif.lint.draft import Draft, Finding

MAX_QUESTION_TOKENS = 4096

constitution_app = typer.Typer(no_args_is_help=True, help="Lint a constitution, compare two, or import public files.")

NameOrFile = Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped constitution")]
Model = Annotated[
    str | None,
    typer.Option(help="a language model that judges the rules of meaning: a Hugging Face directory or hub name"),
]


@constitution_app.command("lint")
def lint_command(constitution: NameOrFile, model: Model = None) -> None:
    """Print one line for each finding; exits with 2 when there are errors. Warnings are for you to weigh."""
    from rlaif.lint.meaning import MEANING
    from rlaif.lint.structure import lint

    draft, findings = lint(constitution)
    unjudged: tuple[str, ...] = ()
    if model is None:
        codes = ", ".join(rule.code for rule in MEANING)
        unjudged = (f"{codes} were judged by words only, not by meaning: give --model PATH",)
    else:
        more, unjudged = _judge(model, draft, findings)
        findings += more
    errors = sum(finding.severity == "error" for finding in findings)
    _print(*findings, *unjudged, f"{errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(2)


@constitution_app.command("diff")
def diff_command(old: NameOrFile, new: NameOrFile) -> None:
    """Print what changed from OLD to NEW, field by field, and which labels must be made again."""
    from rlaif.constitution.diff import diff
    from rlaif.constitution.principles import load_constitution

    difference = diff(load_constitution(old), load_constitution(new))
    if difference.empty:
        _print("Nothing changed; no label is outdated.")
    else:
        _print(*_changes(difference), *_labels(difference))


@constitution_app.command("import")
def import_json_command(
    files: Annotated[list[Path], typer.Argument(help="JSON, tables of statements, Markdown or text")],
    out: Annotated[Path, typer.Option(help="the YAML file to write")],
) -> None:
    """Combine constitutions of others, such as the paper's JSON files, into one in YAML."""
    import yaml

    from rlaif.constitution.principles import parse_constitution
    from rlaif.constitution.public_files import tree_of

    tree = tree_of(files)
    num = len(parse_constitution(tree, files[0]).principles)
    if out.exists():
        raise UserError(f"--out={out}: exists already; name another file")
    try:
        out.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror}") from None
    _print(
        f"{out}: {num} principles, all of one category; correct categories and weights, "
        f"then run: rlaif constitution lint {out}"
    )


def _print(*lines: object) -> None:
    for line in lines:
        console.print(str(line), highlight=False)


def _judge(model: str, draft: Draft, findings: tuple[Finding, ...]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Ask some hundred short questions with transformers, which is ready in this process long before vLLM would be."""
    import asyncio

    import torch

    from rlaif.config.schema import Labeller
    from rlaif.engines import open_engine
    from rlaif.engines.models import local_model, max_positions
    from rlaif.lint.meaning import judge_meaning

    path = local_model(model, field="--model")
    max_length = min(max_positions(path, field="--model") or MAX_QUESTION_TOKENS, MAX_QUESTION_TOKENS)
    gpu = torch.cuda.is_available()
    settings = Labeller(engine="hf", gpus=float(gpu), dtype="bfloat16" if gpu else "float32", max_length=max_length)

    async def verdicts() -> tuple[tuple[Finding, ...], tuple[str, ...]]:
        engine = open_engine("labeller", path, settings)
        try:
            return await judge_meaning(engine, draft, findings)
        finally:
            await engine.close()

    return asyncio.run(verdicts())


# ------------------------------------------------------------------------------------------ a diff for a person
def _changes(diff: ConstitutionDiff) -> Iterator[str]:
    for sign, principles in (("added", diff.added), ("removed", diff.removed)):
        yield from (f"{sign} {p.id} ({p.category}, {p.priority}, weight {p.weight:g})" for p in principles)
    for change in diff.changed:
        yield from _change(change)
    for change in diff.category_weights:
        yield f"changed category_weights.{change.of}: {change.old:g} -> {change.new:g}"
    for change in diff.priority_weights:
        yield f"changed priority_weights.{change.of}: {change.old:g} -> {change.new:g}"


def _change(change: Change) -> Iterator[str]:
    yield f"changed {change.of}.{change.field}"
    yield f"  - {'(none)' if change.old is None else change.old}"
    yield f"  + {'(none)' if change.new is None else change.new}"


def _labels(diff: ConstitutionDiff) -> Iterator[str]:
    cases = (
        ("that used", (*diff.reworded, *diff.left)),
        ("that now draw", diff.joined),
        ("whose draw changes with the weights (draw: weighted) of", diff.reweighted),
        ("by several principles (conflicts: priority), among them", diff.moved),
    )
    outdated = [f"labels to make again: those {which} {', '.join(ids)}" for which, ids in cases if ids]
    yield from outdated or ["No comparison changed; no label is outdated."]
