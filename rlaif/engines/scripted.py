"""An engine without weights that validates every request and answers by hash: for plans, drills and tests.

It keeps the whole contract of ``rlaif.interfaces``. The same prompt and seed always get the same answer, in any
process. Its answers mean nothing, but its preferences are consistent: a text has one quality, so without slot bias a
label does not depend on the order.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.config.schema import PoolSettings
from rlaif.engines.models import ModelKind, ServedModel
from rlaif.engines.requests import (
    answer_text,
    check_bucket,
    check_complete,
    choice_request,
    generate_request,
    probe_requests,
    score_request,
)
from rlaif.errors import EngineError, ModelError, RequestError
from rlaif.interfaces import WeightBucket, WeightsHeader
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import Completion, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ANSWER_WORDS = ["here", "is", "a", "plain", "answer", "with", "some", "words", "that", "mean", "nothing", "at", "all"]
LETTER_MASS = 0.98  #: total probability of the choices
_AFTER_QUESTION = re.compile(r"\n(?:Let's think|The answer is)")


def open_scripted(role: str, model_path: str | Path | None, settings: PoolSettings) -> ScriptedEngine:
    """A scripted engine with the tokenizer of ``model_path``, or a byte-level one when there is none."""
    if model_path and not Path(model_path, "tokenizer.json").is_file():
        raise ModelError(f"{role}.model={model_path}: no tokenizer.json there")
    tokenizer = load_tokenizer(model_path) if model_path else byte_tokenizer()
    time.sleep(settings.scripted.load_s)
    return ScriptedEngine(tokenizer, settings, kind="preference" if role == "scorer" else "language")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and ``<pad>``, ``<s>``, ``</s>``: encodes any text, one token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


class ScriptedEngine:
    """TextGenerator and ChoiceScorer, or SequenceScorer, depending on its ``kind``.

    ``settings.scripted``: a request takes ``latency_s``; ``concurrency`` of them are served at once, the others wait
    their turn. A share ``failure_rate`` of them raises RequestError (which ones depends on their number, not on their
    content, so a retry may pass). ``slot_bias`` is added to the log-odds of the first of two choices.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: PoolSettings, *, kind: ModelKind) -> None:
        self.tokenizer = tokenizer
        self.max_length = settings.max_length
        self.model_version = f"scripted@{kind}"
        self.policy_version = 0
        self._script = settings.scripted
        self._failures = random.Random(0)
        self._free_at = [0.0] * (settings.scripted.concurrency or 0)  #: a heap with a time for each place
        self._closed = False
        self._taking: WeightsHeader | None = None  #: new weights that are on their way
        self._loaded: set[str] = set()
        self._model = ServedModel(
            path="scripted",
            version=self.model_version,
            kind=kind,
            vocab_size=len(tokenizer),
            max_length=settings.max_length,
            eos_id=tokenizer.eos_token_id,
            end_ids=frozenset({tokenizer.eos_token_id}),
            shapes={},
        )

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """A few words and the EOS, cut where there is no more room."""
        request = generate_request(self._model, prompt_ids, sampling)
        version = self.policy_version
        await self._work()
        chance = _random(request.prompt_ids, 0 if sampling.temperature == 0 else sampling.seed)
        words = " ".join(chance.choices(ANSWER_WORDS, k=chance.randint(1, len(ANSWER_WORDS))))
        whole = [*self.tokenizer(f" {words}", add_special_tokens=False)["input_ids"], self._model.eos_id]
        token_ids = tuple(whole[: request.sampling.max_tokens])
        return Completion(
            token_ids=token_ids,
            logprobs=tuple(-chance.expovariate(1.0) for _ in token_ids),
            text=answer_text(self.tokenizer, token_ids, self._model.end_ids, sampling.stop),
            finish_reason="stop" if len(token_ids) == len(whole) else "length",
            policy_version_start=version,
            policy_version_end=self.policy_version,
        )

    async def choice_logprobs(self, prompt_ids: Sequence[int], choice_ids: Sequence[int]) -> tuple[float, ...]:
        """For two choices: log-odds = quality of the text in slot A - quality of that in slot B + slot bias."""
        request = choice_request(self._model, prompt_ids, choice_ids)
        await self._work()
        if len(request.choice_ids) == 2:
            logits = [self._advantage(request.prompt_ids) + self._script.slot_bias, 0.0]
        else:
            logits = [_random(request.prompt_ids, choice).gauss(0, 1) for choice in request.choice_ids]
        norm = math.log(sum(map(math.exp, logits))) - math.log(LETTER_MASS)
        return tuple(logit - norm for logit in logits)

    async def score(self, token_ids: Sequence[int]) -> float:
        request = score_request(self._model, token_ids)
        await self._work()
        return _random(request.token_ids, 0).gauss(0, 1)

    async def begin_weights(self, header: WeightsHeader) -> None:
        """Raises WeightSyncError when the version is older, or when there is no probe that could be computed."""
        probe_requests(self._model, self.policy_version, header)
        self._taking, self._loaded = header, set()

    async def load_weights(self, bucket: WeightBucket) -> None:
        """Raises WeightSyncError for a bucket that was not announced."""
        assert self._taking is not None, "begin_weights comes first"
        check_bucket(self._taking, bucket)
        self._loaded.update(bucket.tensors)

    async def serve_weights(self) -> None:
        """Adopt the version. Raises WeightSyncError when tensors are missing."""
        assert self._taking is not None, "begin_weights comes first"
        check_complete(self._taking, self._loaded)
        await self._work()
        self.policy_version, self._taking = self._taking.version, None

    def prefix_hits(self) -> tuple[int, int]:
        """There is no cache."""
        return 0, 0

    async def close(self) -> None:
        self._closed = True

    async def _work(self) -> None:
        if self._closed:
            raise EngineError(f"engine {self.model_version} was closed")
        fails = self._failures.random() < self._script.failure_rate
        await asyncio.sleep(self._service_s())
        if fails:
            raise RequestError("a scripted failure (scripted.failure_rate)")

    def _service_s(self) -> float:
        """Seconds until a request that arrives now is served. The times at which places become free are added up, not
        measured, so that an engine that wakes up late still serves ``concurrency / latency_s`` requests a second."""
        now = time.monotonic()
        if not self._free_at:
            return self._script.latency_s
        served_at = max(now, self._free_at[0]) + self._script.latency_s
        heapq.heapreplace(self._free_at, served_at)
        return served_at - now

    def _advantage(self, prompt_ids: tuple[int, ...]) -> float:
        slots = _slots(self.tokenizer.decode(prompt_ids))
        if slots is None:
            return _random(prompt_ids, 0).gauss(0, 1)
        a, b = map(quality, slots)
        return a - b


def _slots(prompt: str) -> tuple[str, str] | None:
    """The answers in the slots of the last question: few-shot examples come before it, reasoning after it."""
    _, is_asked, options = prompt.rpartition("\n(A) ")
    a, has_both, rest = options.rpartition("\n(B) ")
    end = _AFTER_QUESTION.search(rest)
    return (a, rest[: end.start()].rstrip("\n")) if is_asked and has_both and end else None


def quality(text: str) -> float:
    """The scripted labeller's opinion of an answer, in log-odds: a fixed draw from N(0, 1)."""
    return random.Random(hashlib.sha256(text.strip().encode()).digest()).gauss(0, 1)


def _random(token_ids: Sequence[int], seed: int) -> random.Random:
    return random.Random(hashlib.sha256(repr((tuple(token_ids), seed)).encode()).digest())
