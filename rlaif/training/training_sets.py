"""Records become training rows: token ids in parquet files, which Ray Data (or one process) feeds to the ranks.

Tokens: answers that the policy sampled go in as the ids that were sampled; only texts that no policy sampled here
(revisions, human pairs, voted answers) are tokenised. Every dialogue ends in exactly one EOS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.algorithms.preference_model import pretraining_pairs
from rlaif.config.schema import PreferenceModel, Supervision
from rlaif.ids import revision_id, sample_id
from rlaif.prompting.dialogues import DialogueFormat, dialogue
from rlaif.prompting.tokenization import encode, prompt_ids
from rlaif.records import Answer, Preference, PreferencePair, RevisionChain, ScoredAnswers, Status, Turn
from rlaif.seeds import seed_from
from rlaif.storage.files import replacing
from rlaif.tasks.sampling import ensure_eos
from rlaif.training.batches import TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_Ids = Sequence[int]
SplitName = Literal["fit", "test_fit", "heldout"]  #: of the pairs; ``test_fit`` is for the test preference model

SFT_SCHEMA = pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("prompt_length", pa.int32())])
PAIR_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("axis", pa.string()),
        ("input_ids_1", pa.list_(pa.int32())),
        ("input_ids_2", pa.list_(pa.int32())),
        ("prob", pa.float32()),
        ("weight", pa.float32()),
    ]
)
ROW_GROUP = 2_000


# -------------------------------------------------------------------------------------------------------- SFT
@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Rows given and rows written; the rest were left out because their answers cannot be trained on."""

    rows_in: int
    rows_out: int

    @property
    def left_out(self) -> int:
        return self.rows_in - self.rows_out


def sft_rows(
    chains: Iterable[RevisionChain],
    samples: Iterable[Answer],
    tokenizer: PreTrainedTokenizerFast,
    format: DialogueFormat,
    settings: Supervision,
) -> Iterator[TrainingRow | None]:
    """A training row for each revision (of OK chains) and each helpful sample; None for what cannot be used."""
    for chain in chains:
        if chain.status != Status.OK:
            yield None
            continue
        good = [(k, round.revision) for k, round in enumerate(chain.rounds) if round.flaw is None]
        for k, text in good if settings.train_on == "all" else good[-1:]:
            yield _sft_row(revision_id(chain.id, k), chain.prompt, text, tokenizer, format, settings.max_length)
    for sample in samples:
        usable = sample.status == Status.OK and sample.finish_reason == "stop"
        yield (
            _sft_row(sample.id, sample.prompt, sample.text, tokenizer, format, settings.max_length) if usable else None
        )


def _sft_row(
    id: str,
    turns: tuple[Turn, ...],
    text: str,
    tokenizer: PreTrainedTokenizerFast,
    format: DialogueFormat,
    max_length: int,
) -> TrainingRow | None:
    form = dialogue(format, tokenizer)
    prompt = prompt_ids(tokenizer, form.prompt(turns))
    answer = [*encode(tokenizer, form.answer_prefix + text), tokenizer.eos_token_id]
    if len(answer) >= max_length:
        return None
    prompt = prompt[-(max_length - len(answer)) :]  # the oldest tokens go first
    return {"id": id, "input_ids": prompt + answer, "prompt_length": len(prompt)}


def write_sft_rows(path: Path, rows: Iterable[TrainingRow | None]) -> RowCounts:
    return _write(path, rows, SFT_SCHEMA)


# ------------------------------------------------------------------------------------------- preference pairs
def ai_probs(labels: Iterable[Preference], shuffle: bool, seed: int) -> dict[str, float]:
    """P(answer_1 better) by label id, only for OK and TIE labels; permuted among them for the control."""
    probs = {label.id: label.prob for label in labels if label.prob is not None}
    if not shuffle:
        return probs
    permuted = np.random.default_rng(seed_from(seed, "shuffle_labels")).permutation(list(probs.values()))
    return dict(zip(probs, map(float, permuted), strict=True))


@dataclass(frozen=True, kw_only=True)
class PairBuilder:
    """Makes preference-model rows: two whole dialogues, P(first better), a loss weight."""

    tokenizer: PreTrainedTokenizerFast
    dialogue_format: DialogueFormat
    settings: PreferenceModel
    seed: int

    def from_labels(self, labels: Iterable[Preference], probs: Mapping[str, float]) -> Iterator[TrainingRow]:
        eos = self.tokenizer.eos_token_id
        for label in labels:
            if label.id in probs:
                first, second = ensure_eos(label.token_ids_1, eos), ensure_eos(label.token_ids_2, eos)
                weight = self.settings.harmless_weight
                yield self._row(label.id, "harmless", label.prompt_ids, first, second, probs[label.id], weight)

    def from_pairs(self, pairs: Iterable[PreferencePair]) -> Iterator[TrainingRow]:
        form = dialogue(self.dialogue_format, self.tokenizer)
        for pair in pairs:
            prompt = prompt_ids(self.tokenizer, form.prompt(pair.prompt))
            chosen, rejected = self._answer(pair.chosen), self._answer(pair.rejected)
            yield self._row(pair.id, "helpful", prompt, chosen, rejected, 1.0, 1.0)

    def from_votes(self, questions: Iterable[ScoredAnswers]) -> Iterator[TrainingRow]:
        for question in questions:
            for i, (better, worse) in enumerate(pretraining_pairs(question)):
                yield self._row(
                    sample_id(question.id, i), "votes", (), self._whole(better), self._whole(worse), 1.0, 1.0
                )

    def mix(self, ai: Iterable[TrainingRow], pairs: Iterable[PreferencePair], num_labels: int) -> Iterator[TrainingRow]:
        """AI labels and then as many human pairs as ``helpful_per_harmless`` asks for (all, when there are fewer)."""
        yield from ai
        wanted = round(self.settings.helpful_per_harmless * num_labels)
        for taken, row in enumerate(self.from_pairs(pairs)):
            if taken == wanted:
                return
            yield row

    @property
    def splits(self) -> tuple[SplitName, ...]:
        return ("fit", "test_fit", "heldout") if self.settings.test_split else ("fit", "heldout")

    def split_of(self, row: TrainingRow) -> SplitName:
        """Where a row goes, decided only by its id. What is held out is the same with and without a test split."""
        if seed_from(self.seed, "heldout", row["id"]) / 2**63 < self.settings.heldout_fraction:
            return "heldout"
        if self.settings.test_split and seed_from(self.seed, "test_split", row["id"]) % 2:
            return "test_fit"
        return "fit"

    def _answer(self, text: str) -> list[int]:
        prefix = dialogue(self.dialogue_format, self.tokenizer).answer_prefix
        return [*encode(self.tokenizer, prefix + text), self.tokenizer.eos_token_id]

    def _whole(self, text: str) -> list[int]:
        return [*prompt_ids(self.tokenizer, text), self.tokenizer.eos_token_id]

    def _row(
        self, id: str, axis: str, prompt: _Ids, first: _Ids, second: _Ids, prob: float, weight: float
    ) -> TrainingRow:
        longest = self.settings.max_length
        return {
            "id": id,
            "axis": axis,
            "input_ids_1": [*prompt, *first][-longest:],  # the oldest tokens go first, the EOS stays
            "input_ids_2": [*prompt, *second][-longest:],
            "prob": prob,
            "weight": weight,
        }


def write_pair_rows(path: Path, rows: Iterable[TrainingRow]) -> RowCounts:
    return _write(path, rows, PAIR_SCHEMA)


def write_pair_splits(
    paths: Mapping[SplitName, Path], rows: Iterable[TrainingRow], split_of: Callable[[TrainingRow], SplitName]
) -> dict[SplitName, RowCounts]:
    """Write each row to the file of its split; ``rows`` are read once, however many files there are."""
    with ExitStack() as stack:
        files = {split: stack.enter_context(_row_file(path, PAIR_SCHEMA)) for split, path in paths.items()}
        for row in rows:
            files[split_of(row)].add(row)
    return {split: file.counts for split, file in files.items()}


def write_pair_table(path: Path, pairs: pa.Table) -> None:
    """Rows that were written as pairs before, without making Python objects of them."""
    with replacing(path) as unfinished:
        pq.write_table(pairs, unfinished, row_group_size=ROW_GROUP)


def _write(path: Path, rows: Iterable[TrainingRow | None], schema: pa.Schema) -> RowCounts:
    with _row_file(path, schema) as file:
        for row in rows:
            file.add(row)
    return file.counts


@contextmanager
def _row_file(path: Path, schema: pa.Schema) -> Iterator[_RowFile]:
    """A file of rows that has its name once the context has ended without an error."""
    with replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        file = _RowFile(writer, schema)
        yield file
        file.flush()


class _RowFile:
    """Writes rows in groups, and counts them; None stands for a row that is left out."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._buffer: list[TrainingRow] = []
        self._rows_in = self._rows_out = 0

    def add(self, row: TrainingRow | None) -> None:
        self._rows_in += 1
        if row is not None:
            self._rows_out += 1
            self._buffer.append(row)
            if len(self._buffer) == ROW_GROUP:
                self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=self._schema))
        self._buffer = []

    @property
    def counts(self) -> RowCounts:
        return RowCounts(rows_in=self._rows_in, rows_out=self._rows_out)
