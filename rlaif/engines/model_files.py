"""The files of a model directory, which comes from anywhere: what is damaged or hostile is one ModelError.

Of each file, only what is used has a shape here. None is read beyond its limit, and only regular files are opened: a
pipe would be waited for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaif.errors import ModelError, format_value
from rlaif.places.paths import is_file

MAX_JSON_BYTES = 16 << 20  #: of a configuration; those of public models have some KiB
MAX_HEADER_BYTES = 100_000_000  #: of a safetensors file: the format's own limit
LENGTH_BYTES = 8  #: before the header of a safetensors file
MAX_FIELD_CHARS = 100  #: of a field's name in a message

_Number = Annotated[int, Field(ge=1, le=10**12)]
_Size = Annotated[int, Field(ge=0, le=2**62)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class TextConfig(_Shape):
    """Of a model that reads more than text."""

    vocab_size: _Number | None = None


class ModelConfig(_Shape):
    """``config.json``."""

    model_type: str | None = None
    architectures: tuple[str, ...] | None = None
    max_position_embeddings: _Number | None = None
    vocab_size: _Number | None = None
    text_config: TextConfig | None = None
    pad_token_id: int | None = None
    id2label: dict[str, Any] | None = None

    @property
    def vocabulary(self) -> int | None:
        """Rows of the embeddings."""
        return (self.text_config or self).vocab_size


class GenerationConfig(_Shape):
    """``generation_config.json``."""

    eos_token_id: int | tuple[int, ...] | None = None


class _Tensor(_Shape):
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


class _Header(_Shape):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Tensor]

    about: dict[str, str] | None = Field(None, alias="__metadata__")


_S = TypeVar("_S", bound=_Shape)


def read_model_json(shape: type[_S], file: Path, where: str) -> _S:
    """A JSON file as a ``shape``. Raises ModelError, which begins with ``where``, names the file, and the field."""
    return parse_model_json(shape, read_bytes(file, where), f"{where}: {file.name}")


def parse_model_json(shape: type[_S], content: bytes | str, what: str) -> _S:
    """Likewise, of the ``content`` of ``what``."""
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ModelError(f"{what} is not JSON: {first['ctx']['error']}") from None
        field = ".".join(map(str, first["loc"]))[:MAX_FIELD_CHARS]
        raise ModelError(": ".join([what, *([field] if field else []), first["msg"]])) from None


def read_bytes(file: Path, where: str) -> bytes:
    """All of a small file. Raises ModelError for one that is large, that is no file, or that cannot be read."""
    if not is_file(file):
        raise ModelError(f"{where}: {format_value(str(file))} is not a file")
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{where}: {file.name} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_JSON_BYTES:
        raise ModelError(f"{where}: {file.name} has more than {MAX_JSON_BYTES:,} bytes, too many for what it is")
    return content


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files, as ``files_like``."""
    return files_like(directory, "*.safetensors")


def files_like(directory: Path, *patterns: str) -> list[Path]:
    """In order of their names. Raises ModelError for one that is a directory, a broken link or a pipe."""
    files = sorted(file for pattern in patterns for file in directory.glob(pattern))
    for file in files:
        if not is_file(file):
            raise ModelError(f"{directory}: {file.name} is not a file; if it is a link, what it names is missing")
    return files


def read_header(file: Path) -> bytes:
    """The JSON header of a safetensors file, which follows its length. Raises ModelError when that cannot be."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, file.stat().st_size - LENGTH_BYTES):
            raise ModelError(f"{file.parent}: {file.name} is cut or damaged: its header has no possible length")
        return stream.read(length)


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of a safetensors file. Raises ModelError for a file that is cut or damaged."""
    content = read_header(file)
    tensors = parse_model_json(_Header, content, f"{file.parent}: the header of {file.name}").__pydantic_extra__
    end = LENGTH_BYTES + len(content) + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if end > (size := file.stat().st_size):
        raise ModelError(f"{file.parent}: {file.name} is cut: it has {size:,} bytes of {end:,}")
    return {name: tensor.shape for name, tensor in tensors.items()}
