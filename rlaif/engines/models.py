"""What can be known about a model directory without loading it: used by plans, checks and every engine.

Imports neither torch nor vLLM. A model directory is the Hugging Face layout: ``config.json``, safetensors,
``tokenizer.json``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlaif.config.files import expand_home
from rlaif.engines.model_files import (
    GenerationConfig,
    ModelConfig,
    files_like,
    read_header,
    read_model_json,
    read_shapes,
    weight_files,
)
from rlaif.errors import ModelError, RequestError
from rlaif.places.paths import file_mode, is_directory, is_file
from rlaif.prompting.chat_templates import DEFAULT_FORMAT, turn_end
from rlaif.prompting.probes import template_excess
from rlaif.prompting.tokenization import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ModelKind = Literal["language", "preference"]

HEAD = "lm_head.weight"  #: the output head; absent from the file when it is tied to the embeddings
WHOLE_FILE_BYTES = 64 << 20  #: weight files up to this size are hashed whole
#: Files that a model's answers depend on besides its weights: configurations, tokenizer, chat template.
ABOUT_MODEL = ("*.json", "*.jinja", "*.model", "*.txt")
SAMPLE_BYTES = 1 << 20  #: of larger ones, this much of each end


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What an engine needs to know to check requests and weights. ``shapes``: by parameter name, a tied head included
    (its shape is None, because the file does not have it)."""

    path: str
    version: str
    kind: ModelKind
    vocab_size: int
    max_length: int
    eos_id: int
    end_ids: frozenset[int]
    shapes: Mapping[str, tuple[int, ...] | None]


def is_hub_name(model: str) -> bool:
    """Whether ``model`` means ``organisation/name`` on the Hugging Face hub, and not a path."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not file_mode(model)


def local_model(model: str, *, field: str, fetch: bool = True) -> Path:
    """The directory of a model: the one named, or the local snapshot of a hub name, fetched once if ``fetch`` allows.

    Raises ModelError for a name that is neither. On a cluster, HF_HOME must be a place that every node sees, which
    ``actors.cluster.nodes`` checks.
    """
    if not is_hub_name(model):
        # Absolute, because the process that loads it may have another working directory.
        return expand_home(model).absolute()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, ignore_patterns=["*.bin", "*.pth", "*.gguf"], local_files_only=not fetch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{field}={model}: no such directory, and the hub does not provide it: {error}") from error


def check_model_dir(path: str | Path, *, field: str) -> None:
    """Raises ModelError, naming ``field`` of the configuration and what is missing, when ``path`` holds no model."""
    directory = Path(path)
    if not is_directory(path):
        raise ModelError(f"{field}={path}: no such directory")
    missing = [name for name in ("config.json", "tokenizer.json") if not is_file(directory / name)]
    if "config.json" in missing and is_file(directory / "adapter_config.json"):
        raise ModelError(f"{field}={path}: a LoRA adapter without its model; merge it into its base first")
    if not weight_files(directory):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(f"{field}={path}: not a model directory, it lacks {', '.join(missing)}")
    if not _config(directory, field).architectures:
        raise ModelError(f"{field}={path}: config.json names no architectures")


def read_model(path: str | Path, *, field: str, max_length: int, pooling: bool) -> ServedModel:
    """Check a model directory and read what an engine needs to know about it.

    Raises ModelError as ``check_model_dir`` does, and when the model has fewer positions than
    ``max_length`` or is of the wrong kind: ``pooling`` needs a preference model whose padding token is not its EOS,
    anything else a language model.
    """
    kind: ModelKind = "preference" if pooling else "language"
    check_model_dir(path, field=field)
    directory = Path(path)
    config = _config(directory, field)
    _check_kind(config, kind, f"{field}={path}")
    positions = config.max_position_embeddings
    if positions is not None and max_length > positions:
        raise ModelError(f"{field}={path}: max_length={max_length} is beyond the model's {positions} positions")
    if config.vocab_size is None:
        raise ModelError(f"{field}={path}: config.json names no vocab_size")
    tokenizer = load_tokenizer(path)
    eos_id = tokenizer.eos_token_id
    if pooling and config.pad_token_id in (None, eos_id):
        raise ModelError(
            f"{field}={path}: scores are read before the padding, so pad_token_id must differ from the EOS"
        )
    return ServedModel(
        path=str(path),
        version=model_version(path),
        kind=kind,
        vocab_size=config.vocab_size,
        max_length=max_length,
        eos_id=eos_id,
        end_ids=frozenset({eos_id, *_generation_ends(directory, field), *_turn_ends(tokenizer)}),
        shapes=tensor_shapes(path),
    )


def max_positions(path: str | Path, *, field: str) -> int | None:
    """How many positions a model has, if its config says so. Raises ModelError as ``check_model_dir`` does."""
    check_model_dir(path, field=field)
    return _config(Path(path), field).max_position_embeddings


def read_vocabulary_size(path: str | Path) -> int | None:
    """Rows of a model's embeddings, if its ``config.json`` says so; None also where that cannot be read."""
    try:
        return _config(Path(path), "model").vocabulary
    except ModelError:
        return None


def model_version(path: str | Path) -> str:
    """``DIRECTORY@HASH``: the directory's name and the first eight hex digits of ``model_hash``."""
    return f"{Path(path).resolve().name}@{model_hash(path)[:8]}"


def model_hash(path: str | Path) -> str:
    """16 hex digits that change with a model's config, weights, tokenizer or chat template, not with its directory.

    Of weight files over 64 MiB only the size, the header and both ends are hashed, so that a large model takes
    milliseconds.
    """
    directory, digest = Path(path).resolve(), hashlib.sha256()
    for file in files_like(directory, *ABOUT_MODEL):
        digest.update(os.fsencode(file.name) + _file_digest(file))
    for file in weight_files(directory):
        digest.update(os.fsencode(f"{file.name}:{file.stat().st_size}"))
        for part in _hashed_parts(file):
            digest.update(part)
    return digest.hexdigest()[:16]


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...] | None]:
    """Shape of every parameter in the weight files; a language model's tied head is listed too, with None."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for file in weight_files(Path(path)):
        shapes |= read_shapes(file)
    if _is_language_model(_config(Path(path), "model")):
        shapes.setdefault(HEAD, None)
    return shapes


def _config(directory: Path, field: str) -> ModelConfig:
    return read_model_json(ModelConfig, directory / "config.json", f"{field}={directory}")


def _is_language_model(config: ModelConfig) -> bool:
    return any(name.endswith("ForCausalLM") for name in config.architectures or ())


def _check_kind(config: ModelConfig, kind: ModelKind, where: str) -> None:
    names = config.architectures or ()
    if kind == "language" and not _is_language_model(config):
        raise ModelError(f"{where}: {', '.join(names)} generates no text; a ...ForCausalLM is needed")
    if kind == "preference":
        if not any(name.endswith("ForSequenceClassification") for name in names):
            raise ModelError(f"{where}: {', '.join(names)} scores nothing; a ...ForSequenceClassification is needed")
        if config.id2label is None or len(config.id2label) != 1:
            raise ModelError(f"{where}: a preference model has one label")


def _generation_ends(directory: Path, field: str) -> tuple[int, ...]:
    """Further token ids that end an answer, e.g. the end-of-turn token of chat models."""
    file = directory / "generation_config.json"
    ends = read_model_json(GenerationConfig, file, f"{field}={directory}").eos_token_id if is_file(file) else None
    if ends is None:
        return ()
    return ends if isinstance(ends, tuple) else (ends,)


def _turn_ends(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The token with which the model's own chat template ends an answer, which few models declare as an EOS."""
    if not tokenizer.chat_template or template_excess(tokenizer, DEFAULT_FORMAT) is not None:
        return []
    try:
        end = turn_end(tokenizer, DEFAULT_FORMAT)
    except RequestError:  # a template that is not used here, or preflight has refused it
        return []
    return [] if end is None else [tokenizer.convert_tokens_to_ids(end)]


def _file_digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _hashed_parts(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    if size <= WHOLE_FILE_BYTES:
        yield file.read_bytes()
        return
    yield read_header(file)
    with file.open("rb") as stream:
        yield stream.read(SAMPLE_BYTES)
        stream.seek(size - SAMPLE_BYTES)
        yield stream.read(SAMPLE_BYTES)
