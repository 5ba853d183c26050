"""What can be known of a model directory without loading it: used by plans, checks and every engine.

Imports neither torch nor vLLM. A model directory is the Hugging Face layout: ``config.json``, safetensors,
``tokenizer.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif.errors import ModelError
from rlaif.prompting.tokenization import load_tokenizer

__all__ = [
    "HEAD",
    "ServedModel",
    "check_model_dir",
    "load_tokenizer",
    "max_positions",
    "model_version",
    "read_model",
    "tensor_shapes",
]

ModelKind = Literal["language", "preference"]

HEAD = "lm_head.weight"  #: the output head; absent from the file when it is tied to the embeddings
WHOLE_FILE_BYTES = 64 << 20  #: weight files up to this size are hashed whole
SAMPLE_BYTES = 1 << 20  #: of larger ones, this much of each end


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What an engine needs to know to check requests and weights. ``shapes``: by parameter name, tied head included
    (with the shape None where the file does not tell it)."""

    path: str
    version: str
    kind: ModelKind
    vocab_size: int
    max_length: int
    eos_id: int
    end_ids: frozenset[int]
    shapes: Mapping[str, tuple[int, ...] | None]


def local_model(model: str, *, field: str) -> Path:
    """The directory of a model: itself, or the local snapshot of a hub name (``organisation/name``), fetched once.

    Raises ModelError for a name that is neither. On a cluster, HF_HOME must be a place that every node sees.
    """
    path = Path(model).expanduser()
    if path.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        return path.absolute()  # whoever loads it may work elsewhere
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{field}={model}: no such directory, and not to be had from the hub: {error}") from error


def check_model_dir(path: str | Path, *, field: str) -> None:
    """Raises ModelError, naming ``field`` of the configuration and what is missing, when ``path`` is no model."""
    directory = Path(path)
    if not directory.is_dir():
        raise ModelError(f"{field}={path}: no such directory")
    missing = [name for name in ("config.json", "tokenizer.json") if not (directory / name).is_file()]
    if "config.json" in missing and (directory / "adapter_config.json").is_file():
        raise ModelError(f"{field}={path}: a LoRA adapter without its model; merge it into its base first")
    if not any(directory.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(f"{field}={path}: not a model directory, it lacks {', '.join(missing)}")
    if not _config(directory, field).get("architectures"):
        raise ModelError(f"{field}={path}: config.json names no architectures")


def read_model(path: str | Path, *, field: str, max_length: int, pooling: bool) -> ServedModel:
    """Check a model directory and read what an engine needs of it.

    Raises ModelError as ``check_model_dir`` does, and when the model is shorter than ``max_length`` or of the
    wrong kind: for ``pooling`` a preference model, whose padding token is not its EOS; a language model otherwise.
    """
    kind: ModelKind = "preference" if pooling else "language"
    check_model_dir(path, field=field)
    directory = Path(path)
    config = _config(directory, field)
    _check_kind(config, kind, f"{field}={path}")
    positions = config.get("max_position_embeddings")
    if positions is not None and max_length > positions:
        raise ModelError(f"{field}={path}: max_length={max_length} is beyond the model's {positions} positions")
    eos_id = load_tokenizer(path).eos_token_id
    if pooling and config.get("pad_token_id") in (None, eos_id):
        raise ModelError(
            f"{field}={path}: scores are read before the padding, so pad_token_id must differ from the EOS"
        )
    return ServedModel(
        path=str(path),
        version=model_version(path),
        kind=kind,
        vocab_size=config["vocab_size"],
        max_length=max_length,
        eos_id=eos_id,
        end_ids=frozenset({eos_id, *_generation_ends(directory)}),
        shapes=tensor_shapes(path),
    )


def max_positions(path: str | Path, *, field: str) -> int | None:
    """How many tokens a model was made for, where it says so. Raises ModelError as ``check_model_dir`` does."""
    check_model_dir(path, field=field)
    return _config(Path(path), field).get("max_position_embeddings")


def model_version(path: str | Path) -> str:
    """``DIRECTORY@HASH``: the directory's name and eight digits that change with its config or weights.

    Weight files over 64 MiB are known by their size, header and both ends, so that a large model costs milliseconds.
    """
    directory = Path(path).resolve()
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for file in sorted(directory.glob("*.safetensors")):
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
        for part in _telling_parts(file):
            digest.update(part)
    return f"{directory.name}@{digest.hexdigest()[:8]}"


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...] | None]:
    """Shape of every parameter in the weight files; a language model's tied head is named too, with None."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        header = json.loads(_header(file))
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    if _is_language_model(_config(Path(path), "model")):
        shapes.setdefault(HEAD, None)
    return shapes


def _config(directory: Path, field: str) -> dict[str, Any]:
    try:
        return json.loads((directory / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise ModelError(f"{field}={directory}: config.json is not JSON: {error}") from error


def _is_language_model(config: Mapping[str, Any]) -> bool:
    return any(name.endswith("ForCausalLM") for name in config.get("architectures") or ())


def _check_kind(config: Mapping[str, Any], kind: ModelKind, where: str) -> None:
    names = config["architectures"]
    if kind == "language" and not _is_language_model(config):
        raise ModelError(f"{where}: {', '.join(names)} generates no text; a ...ForCausalLM is needed")
    if kind == "preference":
        if not any(name.endswith("ForSequenceClassification") for name in names):
            raise ModelError(f"{where}: {', '.join(names)} scores nothing; a ...ForSequenceClassification is needed")
        if len(config.get("id2label", {0: "", 1: ""})) != 1:
            raise ModelError(f"{where}: a preference model has one label")


def _generation_ends(directory: Path) -> list[int]:
    """Further token ids that end an answer, e.g. the end-of-turn token of chat models."""
    file = directory / "generation_config.json"
    ends = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def _header(file: Path) -> bytes:
    """The JSON header of a safetensors file: eight bytes of its length, then itself."""
    with file.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little"))


def _telling_parts(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    if size <= WHOLE_FILE_BYTES:
        yield file.read_bytes()
        return
    yield _header(file)
    with file.open("rb") as stream:
        yield stream.read(SAMPLE_BYTES)
        stream.seek(size - SAMPLE_BYTES)
        yield stream.read(SAMPLE_BYTES)
