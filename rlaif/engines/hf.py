"""transformers as a backend: the numerical reference, and the engine of one-process runs with small models.

Continuous batching over one key/value cache, on a CPU or one GPU. Shapes: B rows, T cached positions, V vocabulary.
Rows are left-padded, so that the newest token of every row is in the last column; ``mask`` [B, T] is 0 on padding, and
a token's position is the number of real tokens before it. There is no paging and no prefix cache: unlike in vLLM, rows
of very different lengths waste memory.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DynamicCache,
)

from rlaif.config.schema import PoolSettings
from rlaif.engines.backend import Result, SampledTokens
from rlaif.engines.checksums import as_tensor, bit_sum
from rlaif.engines.models import ServedModel
from rlaif.engines.requests import (
    ChoiceRequest,
    GenerateRequest,
    LogprobsRequest,
    Request,
    ScoreRequest,
    prompt_of,
)
from rlaif.engines.served_weights import check_sums
from rlaif.engines.stop_strings import stop_strings_for
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import FinishReason

_Request = TypeVar("_Request", ChoiceRequest, GenerateRequest, LogprobsRequest, ScoreRequest)

IDLE_WAIT_S = 0.002  #: an idle engine waits this long for more requests to join its first one
MAX_FORWARD_ROWS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """One completion being sampled; its lists grow by one in every round."""

    key: int
    request: GenerateRequest
    random: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """Rows that are decoded together. ``mask`` [B, T] and ``cache`` cover everything but each row's last token."""

    rows: list[_Row]
    mask: torch.Tensor
    cache: DynamicCache


class HFBackend:
    """Uses the first GPU when ``settings.gpus`` is positive, else the CPU."""

    def __init__(self, model: ServedModel, settings: PoolSettings) -> None:
        torch.set_num_threads(settings.threads)
        auto = AutoModelForSequenceClassification if model.kind == "preference" else AutoModelForCausalLM
        network = auto.from_pretrained(
            model.path,
            dtype=getattr(torch, settings.dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",
        )
        self._network = network.to("cuda" if settings.gpus > 0 else "cpu").eval()
        self._model = model
        # A tokenizer of its own: the callers' is used in another thread.
        self._stop_strings = stop_strings_for(load_tokenizer(model.path))
        self._rounded: dict[str, int] = {}  # checksums of what was sent in another number format, in this one
        self._max_rows = settings.max_in_flight
        self._waiting: dict[int, Request] = {}
        self._batch: _Batch | None = None
        self._gathered = False
        self.prefix_hits = (0, 0)

    def admit(self, key: int, request: Request) -> None:
        self._waiting[key] = request

    def cancel(self, key: int) -> None:
        if self._waiting.pop(key, None) is None and self._batch is not None:
            self._batch = _kept(self._batch, [row.key != key for row in self._batch.rows])

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Result]]:
        if self._batch is None and not self._gathered:
            time.sleep(IDLE_WAIT_S)
            self._gathered = True
            return []
        finished = [*self._score(), *self._choose(), *self._read(), *self._advance(), *self._join()]
        self._gathered = bool(self._waiting)
        return finished

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        sent = {name: as_tensor(array) for name, array in tensors.items()}
        self._network.load_state_dict(sent, strict=False)
        dtype = self._network.dtype
        self._rounded |= {name: bit_sum(t.to(dtype)) for name, t in sent.items() if t.dtype != dtype}

    def finish_loading(self, checksums: Mapping[str, int]) -> None:
        served = self._network.state_dict()
        rounded, self._rounded = self._rounded, {}
        check_sums({**checksums, **rounded}, {name: bit_sum(tensor) for name, tensor in served.items()})
        if self._batch is not None:
            self._batch = self._read_again(self._batch.rows)

    def close(self) -> None:
        del self._network
        self._batch = None

    # ------------------------------------------------------------------------- requests of a single forward pass
    def _score(self) -> list[tuple[int, Result]]:
        taken = self._take(ScoreRequest, MAX_FORWARD_ROWS)
        if not taken:
            return []
        ids, mask = self._padded([request.token_ids for request in taken.values()])
        scores = self._network(input_ids=ids, attention_mask=mask, position_ids=_positions(mask)).logits
        return list(zip(taken, scores[:, 0].float().tolist(), strict=True))

    def _choose(self) -> list[tuple[int, Result]]:
        taken = self._take(ChoiceRequest, MAX_FORWARD_ROWS)
        if not taken:
            return []
        ids, mask = self._padded([request.prompt_ids for request in taken.values()])
        logprobs = self._logits(ids, mask, None).log_softmax(-1)
        choices = [list(request.choice_ids) for request in taken.values()]
        return [(key, tuple(row[ids].tolist())) for key, row, ids in zip(taken, logprobs, choices, strict=True)]

    def _read(self) -> list[tuple[int, Result]]:
        taken = self._take(LogprobsRequest, MAX_FORWARD_ROWS)
        if not taken:
            return []
        ids, mask = self._padded([request.prompt_ids for request in taken.values()])
        longest = max(request.num_tokens for request in taken.values())
        logits = self._network(
            input_ids=ids, attention_mask=mask, position_ids=_positions(mask), logits_to_keep=longest + 1
        ).logits
        logprobs = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, -longest:, None])[..., 0]
        numbers = [request.num_tokens for request in taken.values()]
        return [(key, tuple(row[-num:].tolist())) for key, row, num in zip(taken, logprobs, numbers, strict=True)]

    # ------------------------------------------------------------------------------------------- generation
    def _join(self) -> list[tuple[int, Result]]:
        """Read waiting prompts, sample their first tokens, and add them to the batch."""
        running = len(self._batch.rows) if self._batch else 0
        taken = self._take(GenerateRequest, min(MAX_FORWARD_ROWS, self._max_rows - running))
        if not taken:
            return []
        rows = [_row(key, request) for key, request in taken.items()]
        ids, mask = self._padded([row.request.prompt_ids for row in rows])
        logits = self._logits(ids, mask, cache := DynamicCache())
        joined, finished = self._sampled(_Batch(rows=rows, mask=mask, cache=cache), logits)
        self._batch = _merged([batch for batch in (self._batch, joined) if batch is not None])
        return finished

    @torch.inference_mode()
    def _read_again(self, rows: list[_Row]) -> _Batch:
        """The batch of ``rows``, with everything but their last tokens read under the current weights."""
        ids, mask = self._padded([(*row.request.prompt_ids, *row.token_ids[:-1]) for row in rows])
        self._logits(ids, mask, cache := DynamicCache())
        return _Batch(rows=rows, mask=mask, cache=cache)

    def _advance(self) -> list[tuple[int, Result]]:
        """One token for every running row."""
        if self._batch is None:
            return []
        last = torch.tensor([[row.token_ids[-1]] for row in self._batch.rows], device=self._network.device)
        mask = torch.cat([self._batch.mask, torch.ones_like(last)], dim=1)
        logits = self._logits(last, mask, self._batch.cache)
        grown = _Batch(rows=self._batch.rows, mask=mask, cache=self._batch.cache)
        self._batch, finished = self._sampled(grown, logits)
        return finished

    def _sampled(self, batch: _Batch, logits: torch.Tensor) -> tuple[_Batch | None, list[tuple[int, Result]]]:
        """Give each row its next token from ``logits`` [B, V]; returns the unfinished rows and the finished ones."""
        finished: list[tuple[int, Result]] = []
        unfinished = []
        for row, row_logits in zip(batch.rows, logits.cpu(), strict=True):
            _sample(row, row_logits)
            reason = self._finish_reason(row)
            unfinished.append(reason is None)
            if reason is not None:
                ids, logprobs = tuple(row.token_ids), tuple(row.logprobs)
                finished.append((row.key, SampledTokens(token_ids=ids, logprobs=logprobs, finish_reason=reason)))
        return (_kept(batch, unfinished) if finished else batch), finished

    def _finish_reason(self, row: _Row) -> FinishReason | None:
        sampling = row.request.sampling
        if row.token_ids[-1] in self._model.end_ids or self._stops(row):
            return "stop"
        return "length" if len(row.token_ids) == sampling.max_tokens else None

    def _stops(self, row: _Row) -> bool:
        stop = row.request.sampling.stop
        return bool(stop) and self._stop_strings(stop).completed_by(row.token_ids) is not None

    # ----------------------------------------------------------------------------------------------- tensors
    def _take(self, kind: type[_Request], limit: int) -> dict[int, _Request]:
        keys = [key for key, request in self._waiting.items() if isinstance(request, kind)][:limit]
        taken = {key: self._waiting.pop(key) for key in keys}
        hits, asked = self.prefix_hits
        self.prefix_hits = (hits, asked + sum(len(prompt_of(request)) for request in taken.values()))
        return taken  # type: ignore[return-value]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask [B, T], left-padded with the id that classification models skip."""
        width = max(map(len, rows))
        filler = self._network.config.pad_token_id or 0
        ids = torch.tensor([[filler] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self._network.device), mask.to(self._network.device)

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
        """Logits [B, V] after the last column of ``ids``, in float32."""
        return (
            self._network(
                input_ids=ids,
                attention_mask=mask,
                position_ids=_positions(mask)[:, -ids.shape[1] :],
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )


def _row(key: int, request: GenerateRequest) -> _Row:
    return _Row(key=key, request=request, random=torch.Generator().manual_seed(request.sampling.seed))


def _sample(row: _Row, logits: torch.Tensor) -> None:
    """Append a token drawn from ``logits`` [V] and its log-probability. Gumbel-max, with the row's own noise."""
    temperature = row.request.sampling.temperature
    logprobs = (logits / temperature if temperature > 0 else logits).log_softmax(-1)
    noise = torch.empty_like(logprobs).exponential_(generator=row.random).log() if temperature > 0 else 0.0
    token = int((logprobs - noise).argmax())
    row.token_ids.append(token)
    row.logprobs.append(logprobs[token].item())


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _kept(batch: _Batch, keep: Sequence[bool]) -> _Batch | None:
    """The rows of a batch to keep, without the columns in which all of them have padding."""
    index = torch.tensor([place for place, kept in enumerate(keep) if kept], device=batch.mask.device)
    if len(index) == 0:
        return None
    mask = batch.mask[index]
    start = int(mask.any(0).int().argmax())
    cache = DynamicCache()
    for place, layer in enumerate(batch.cache.layers):
        cache.update(layer.keys[index, :, start:], layer.values[index, :, start:], place)
    rows = [row for row, kept in zip(batch.rows, keep, strict=True) if kept]
    return _Batch(rows=rows, mask=mask[:, start:], cache=cache)


def _merged(batches: Sequence[_Batch]) -> _Batch | None:
    """Several batches as one, left-padded to the widest."""
    if len(batches) < 2:
        return batches[0] if batches else None
    width = max(batch.mask.shape[1] for batch in batches)
    cache = DynamicCache()
    for place, layers in enumerate(zip(*(batch.cache.layers for batch in batches), strict=True)):
        keys = torch.cat([_widened(layer.keys, width) for layer in layers])
        values = torch.cat([_widened(layer.values, width) for layer in layers])
        cache.update(keys, values, place)
    mask = torch.cat([pad(batch.mask, (width - batch.mask.shape[1], 0)) for batch in batches])
    return _Batch(rows=[row for batch in batches for row in batch.rows], mask=mask, cache=cache)


def _widened(cached: torch.Tensor, width: int) -> torch.Tensor:
    """Keys or values [B, heads, T, D] with zeros on the left up to ``width`` positions."""
    return pad(cached, (0, 0, width - cached.shape[2], 0))
