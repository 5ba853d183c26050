"""What goes out to the judge of an audit, and what comes back.

``export_audit`` writes ``audit.csv`` and ``audit.html`` for the judge into a directory of their own, and the key (which
pairs, which side answer_1 is on, what the label says, how large the strata are) to ``audit/key.json`` in the run
directory: no file for the judge contains any of it, and none of it can be computed without the run's ``audit/secret``.
Both can be read by their user only. ``import_audit`` reads a filled sheet with the help of the key and
writes ``audit.json`` with every verdict; the report shows it.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rlaif.errors import DataError
from rlaif.evaluation.audit.agreement import Agreement, Choice, JudgedPair, agreement
from rlaif.evaluation.audit.sample import Side, draw_pairs
from rlaif.evaluation.audit.sheet import SheetVerdict, read_verdicts, reading_page, sheet
from rlaif.places.listing import entry_of, join
from rlaif.places.urls import check_place, is_url
from rlaif.places.writing import arriving
from rlaif.storage.damage import check_places
from rlaif.storage.files import write_atomically
from rlaif.storage.record_schema import from_json, to_json

SHEET, PAGE, KEY, SECRET, RESULT = "audit.csv", "audit.html", "audit/key.json", "audit/secret", "audit.json"
SECRET_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRow:
    """What the judge of a pair must not see. ``prob`` is the label's P(answer_1 better) when it was exported."""

    id: str
    label_id: str
    stratum: str
    prob: float
    answer_1: Side


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """``strata``: name -> number of labels; ``left_out``: why labels are in no stratum -> how many."""

    seed: int
    strata: Mapping[str, int]
    left_out: Mapping[str, int]
    rows: tuple[KeyRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The content of ``audit.json``."""

    sheet: str
    seed: int
    num_labels: int
    num_sampled: int
    left_out: Mapping[str, int]
    agreement: Agreement
    metrics: Mapping[str, float]
    pairs: tuple[JudgedPair, ...]


# ---------------------------------------------------------------------------------------------------- export
def export_audit(run_dir: Path, out: str, num_rows: int, seed: int) -> Key:
    """Draw at most ``num_rows`` labels and write what the judge needs into ``out``, the key into ``run_dir``.

    ``out``: the path or URL of a directory.
    """
    check_places(run_dir)
    _check_out(run_dir, out)
    population, pairs = draw_pairs(run_dir, num_rows, seed, _secret(run_dir))
    if not pairs:
        raise DataError(f"{run_dir}: no label to audit: {_counts(population.left_out) or 'there are none'}")
    key = Key(
        seed=seed,
        strata=dict(sorted(population.strata.items())),
        left_out=dict(sorted(population.left_out.items())),
        rows=tuple(
            KeyRow(id=p.id, label_id=p.label_id, stratum=p.stratum, prob=p.prob, answer_1=p.answer_1) for p in pairs
        ),
    )
    _write(join(out, PAGE), reading_page(pairs))  # first: if this fails, the key of an earlier sheet is kept
    _write_private(run_dir / KEY, to_json(key).decode())
    _write(join(out, SHEET), sheet(pairs))
    return key


def _check_out(run_dir: Path, out: str) -> None:
    check_place(out)
    written = join(out, SHEET)
    try:
        exists = entry_of(written) is not None
    except OSError as error:
        raise DataError(f"{written}: cannot be looked for: {error.strerror or error}") from error
    if exists:
        raise DataError(f"{written}: exists, and verdicts in it would be lost; choose another --out")
    if not is_url(out) and Path(out).resolve() == (run_dir / KEY).parent.resolve():
        raise DataError(f"--out {out}: the key is there, which the judge must not see; choose another directory")


def _secret(run_dir: Path) -> bytes:
    """The key of the hashes that decide on sides and ids: made once for a run, so that a draw can be repeated."""
    path = run_dir / SECRET
    try:
        if not path.exists():
            _write_private(path, secrets.token_hex(SECRET_BYTES) + "\n")
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it to have another one made") from error
    if len(secret) != SECRET_BYTES:
        raise DataError(f"{path}: does not hold {SECRET_BYTES} bytes; delete it to have another one made")
    return secret


def _write_private(path: Path, text: str) -> None:
    try:
        write_atomically(path, text, private=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write(place: str, text: str) -> None:
    with arriving(place) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def export_lines(key: Key, run_dir: Path, out: str) -> list[str]:
    """What the command line prints after an export."""
    lines = [f"{len(key.rows)} of {sum(key.strata.values())} labels drawn, from {len(key.strata)} strata"]
    if key.left_out:
        lines.append(f"left out (nothing to agree with): {_counts(key.left_out)}")
    lines += [
        f"for the judge: {join(out, SHEET)}, to be read in {join(out, PAGE)}",
        f"not for the judge: {run_dir / KEY}",
    ]
    return lines


def _counts(named: Mapping[str, int]) -> str:
    return ", ".join(f"{num} {name}" for name, num in named.items())


# ---------------------------------------------------------------------------------------------------- import
def import_audit(run_dir: Path, file: Path) -> Audit:
    """Read a filled sheet; write ``audit.json``, which holds its metrics, too: the run alone writes ``metrics.jsonl``.

    Raises DataError, and writes nothing, if any row has a mistake.
    """
    key = read_key(run_dir)
    rows = {row.id: row for row in key.rows}
    pairs = tuple(_judged_pair(rows[judged.id], judged) for judged in read_verdicts(file, frozenset(rows)))
    agreed = agreement(pairs, key.strata)
    audit = Audit(
        sheet=str(file),
        seed=key.seed,
        num_labels=sum(key.strata.values()),
        num_sampled=len(key.rows),
        left_out=key.left_out,
        agreement=agreed,
        metrics=audit_metrics(agreed),
        pairs=pairs,
    )
    _write(str(run_dir / RESULT), json.dumps(asdict(audit), indent=2) + "\n")
    return audit


def read_key(run_dir: Path) -> Key:
    """The key of the last export. Raises DataError where there is none, or none that can be read."""
    check_places(run_dir)
    path = run_dir / KEY
    try:
        return from_json(Key, path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist; first: rlaif audit export {run_dir} --out DIR") from None
    except (OSError, DataError) as error:
        raise DataError(f"{path}: cannot be read; export again with the same --rows and --seed: {error}") from error


def _judged_pair(row: KeyRow, judged: SheetVerdict) -> JudgedPair:
    return JudgedPair(
        label_id=row.label_id,
        stratum=row.stratum,
        prob=row.prob,
        verdict=choice_of_side(judged, row.answer_1),
        comment=judged.comment,
    )


def choice_of_side(judged: SheetVerdict, answer_1: Side) -> Choice:
    """The verdict in terms of answers; this is the only place where sides are undone."""
    if judged.verdict == "tie":
        return "tie"
    return "answer_1" if judged.verdict == answer_1 else "answer_2"


def audit_metrics(agreement: Agreement) -> Mapping[str, float]:
    """``label/audit/...``"""
    named = {
        "agreement_judged": agreement.judged,
        "agreement_all_labels": agreement.all_labels,
        "kappa_judged": agreement.kappa_judged,
        "kappa_all_labels": agreement.kappa_all_labels,
    }
    metrics = {
        "label/audit/num_judged": agreement.num_judged,
        "label/audit/expected_calibration_error": agreement.expected_calibration_error,
        **{f"label/audit/{name}": value.value for name, value in named.items() if value},
    }
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
