"""What an engine can be asked, and the checks that every engine makes before it starts on a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from operator import index
from typing import TYPE_CHECKING

from rlaif.engines.models import ServedModel
from rlaif.errors import NotFiniteError, RequestError, WeightSyncError
from rlaif.interfaces import WeightBucket, WeightsHeader
from rlaif.prompting.thoughts import THOUGHT_TAG
from rlaif.prompting.tokenization import special_tokens
from rlaif.records import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_SEED = 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRequest:
    prompt_ids: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceRequest:
    prompt_ids: tuple[int, ...]
    choice_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRequest:
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogprobsRequest:
    """For the log-probabilities of the last ``num_tokens`` of a sequence."""

    prompt_ids: tuple[int, ...]
    num_tokens: int


Request = GenerateRequest | ChoiceRequest | ScoreRequest | LogprobsRequest


def prompt_of(request: Request) -> tuple[int, ...]:
    """The token ids that the model reads."""
    return request.token_ids if isinstance(request, ScoreRequest) else request.prompt_ids


def generate_request(model: ServedModel, prompt_ids: Sequence[int], sampling: Sampling) -> GenerateRequest:
    """``max_tokens`` is lowered to the room that the prompt leaves. Raises RequestError when it cannot be served."""
    _expect(model, "language", "generates no text")
    ids = _token_ids(model, prompt_ids, "prompt")
    room = _room(model, ids)
    if sampling.max_tokens < 1 or not 0 <= sampling.temperature < inf or not all(sampling.stop):
        raise RequestError(f"needs max_tokens >= 1, temperature >= 0 and no empty stop string: {sampling}")
    if not 0 <= sampling.seed < MAX_SEED:
        raise RequestError(f"seed {sampling.seed} is not in [0, 2**64)")
    if room < sampling.max_tokens:
        sampling = Sampling(max_tokens=room, temperature=sampling.temperature, seed=sampling.seed, stop=sampling.stop)
    return GenerateRequest(prompt_ids=ids, sampling=sampling)


def choice_request(model: ServedModel, prompt_ids: Sequence[int], choice_ids: Sequence[int]) -> ChoiceRequest:
    """Raises RequestError when it cannot be served, including for no choices or a repeated one."""
    _expect(model, "language", "has no next token to choose")
    ids = _token_ids(model, prompt_ids, "prompt")
    choices = _token_ids(model, choice_ids, "choices")
    _room(model, ids)
    if len(set(choices)) < len(choices):
        raise RequestError(f"choices must differ: {list(choices)}")
    return ChoiceRequest(prompt_ids=ids, choice_ids=choices)


def score_request(model: ServedModel, token_ids: Sequence[int]) -> ScoreRequest:
    """Raises RequestError when it cannot be served, including when the dialogue does not end in the EOS."""
    _expect(model, "preference", "gives no preference scores")
    ids = _token_ids(model, token_ids, "dialogue")
    if len(ids) > model.max_length:
        raise RequestError(f"dialogue of {len(ids)} tokens; the engine holds {model.max_length}")
    if ids[-1] != model.eos_id:
        raise RequestError(f"dialogue ends in token {ids[-1]}, not in the EOS {model.eos_id} that scores are read at")
    return ScoreRequest(token_ids=ids)


def _expect(model: ServedModel, kind: str, lack: str) -> None:
    if model.kind != kind:
        raise RequestError(f"{model.version} is a {model.kind} model: it {lack}")


def _token_ids(model: ServedModel, ids: Iterable[int], what: str) -> tuple[int, ...]:
    try:
        checked = tuple(map(index, ids))
    except TypeError as error:
        raise RequestError(f"{what}: token ids must be integers: {error}") from error
    if not checked:
        raise RequestError(f"{what}: empty")
    if not 0 <= min(checked) <= max(checked) < model.vocab_size:
        unknown = next(i for i in checked if not 0 <= i < model.vocab_size)
        raise RequestError(f"{what}: unknown token id {unknown}; the vocabulary has {model.vocab_size}")
    return checked


def _room(model: ServedModel, prompt_ids: tuple[int, ...]) -> int:
    room = model.max_length - len(prompt_ids)
    if room < 1:
        raise RequestError(f"prompt of {len(prompt_ids)} tokens leaves no room in {model.max_length}")
    return room


def check_finite(model: ServedModel, numbers: Sequence[float]) -> None:
    """Raises NotFiniteError unless all are: a model whose logits are not must make no label, rollout or score."""
    if not all(map(isfinite, numbers)):
        raise NotFiniteError(
            f"{model.version} computes numbers that are not finite; its weights may be damaged, or its dtype too narrow"
        )


def logprobs_request(model: ServedModel, token_ids: Sequence[int], num_tokens: int) -> LogprobsRequest:
    """Raises RequestError when it cannot be served, also when no token is left before the last ``num_tokens``."""
    _expect(model, "language", "gives no log-probabilities")
    ids = _token_ids(model, token_ids, "sequence")
    _room(model, ids)
    if not 1 <= num_tokens < len(ids):
        raise RequestError(f"log-probabilities of {num_tokens} tokens were asked for, of a sequence of {len(ids)}")
    return LogprobsRequest(prompt_ids=ids, num_tokens=num_tokens)


def probe_requests(
    model: ServedModel, policy_version: int, header: WeightsHeader
) -> list[LogprobsRequest | ScoreRequest]:
    """What to ask once these weights are served; the answers are compared with the learner's values.

    Raises WeightSyncError when the version is older than the one served, or when the probe cannot be computed.
    """
    probe = header.probe
    if header.version < policy_version:
        raise WeightSyncError(f"version {header.version} is older than the {policy_version} that is served")
    if not probe.token_ids or len(probe.token_ids) != len(probe.values):
        raise WeightSyncError(f"weights {header.version} come without a probe to prove them by")
    try:
        pairs = zip(probe.token_ids, probe.values, strict=True)
        return [_probe_request(model, ids, len(values)) for ids, values in pairs]
    except RequestError as error:
        raise WeightSyncError(f"weights {header.version}: the probe cannot be computed: {error}") from error


def _probe_request(model: ServedModel, token_ids: Sequence[int], num_values: int) -> LogprobsRequest | ScoreRequest:
    if model.kind == "preference":
        return score_request(model, token_ids)
    return logprobs_request(model, token_ids, num_values)


def check_coverage(model: ServedModel, header: WeightsHeader) -> None:
    """Raises WeightSyncError, naming each mismatch, unless names and shapes cover the model's parameters."""
    mismatches = [
        *(f"missing {name}" for name in sorted(model.shapes.keys() - header.shapes.keys())),
        *(f"unknown {name}" for name in sorted(header.shapes.keys() - model.shapes.keys())),
        *_wrong_shapes(model.shapes, header.shapes),
    ]
    if mismatches:
        raise WeightSyncError(f"weights {header.version} do not cover {model.version}: {'; '.join(mismatches)}")


def check_bucket(header: WeightsHeader, bucket: WeightBucket) -> None:
    """Raises WeightSyncError unless a bucket is what its header has announced, and has checksums."""
    shapes = {name: tuple(tensor.shape) for name, tensor in bucket.tensors.items()}
    unlike = sorted(name for name, shape in shapes.items() if tuple(header.shapes.get(name, ())) != shape)
    unlike += sorted(shapes.keys() ^ bucket.checksums.keys())
    if unlike:
        raise WeightSyncError(f"weights {header.version}: a bucket is not as announced: {', '.join(unlike)}")


def check_complete(header: WeightsHeader, loaded: Iterable[str]) -> None:
    """Raises WeightSyncError unless all tensors have come."""
    if missing := sorted(header.shapes.keys() - set(loaded)):
        raise WeightSyncError(f"weights {header.version} are incomplete: {', '.join(missing)} have not come")


def _wrong_shapes(expected: Mapping[str, tuple[int, ...] | None], sent: Mapping[str, tuple[int, ...]]) -> list[str]:
    shapes = {name: tuple(shape) for name, shape in sent.items()}
    return [
        f"{name} has shape {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if shape is not None and shapes.get(name, shape) != shape
    ]


def answer_text(
    tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int], end_ids: frozenset[int], stop: Sequence[str]
) -> str:
    """The text of an answer, without special tokens (but for those around thoughts), up to the first stop string."""
    ended = len(token_ids) > 0 and token_ids[-1] in end_ids
    text = "".join(_decoded(tokenizer, token_ids[:-1] if ended else token_ids))
    cuts = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(cuts)] if cuts else text


def _decoded(tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int]) -> Iterator[str]:
    """The texts of ``token_ids``, cut where a special token begins or ends a thought: without it, it would be said."""
    tags = {id: name for name, id in special_tokens(tokenizer).items() if THOUGHT_TAG.fullmatch(name)}
    start = 0
    for place in [place for place, id in enumerate(token_ids) if id in tags]:
        yield tokenizer.decode(token_ids[start:place], skip_special_tokens=True) + tags[token_ids[place]]
        start = place + 1
    yield tokenizer.decode(token_ids[start:], skip_special_tokens=True)
