"""What every stage is given: the configuration, the run directory, and where pools and trainers come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.data.prompts import read_prompts
from rlaif.ids import row_id
from rlaif.interfaces import Pool, Pools, Trainers
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import Axis, Prompt, Quarantined
from rlaif.storage.run_dir import RunDir

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Progress(Protocol):
    """Where progress is shown: bars in the CLI, nothing in tests."""

    def start(self, name: str, total: int | None) -> None: ...

    def advance(self, name: str, failed: bool = False) -> None: ...

    def finish(self, name: str) -> None: ...


class Silent:
    """A Progress that shows nothing: for tests, benchmarks, and programs that use the method as a library."""

    def start(self, name: str, total: int | None) -> None: ...

    def advance(self, name: str, failed: bool = False) -> None: ...

    def finish(self, name: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. ``paths`` says where each ``miniature:NAME`` is; any other source or model is its own path."""

    config: Config
    constitution: Constitution
    run_dir: RunDir
    paths: Mapping[str, Path]
    pools: Pools
    trainers: Trainers
    progress: Progress
    _open: dict[str, tuple[str, Pool]] = field(default_factory=dict)

    def path(self, source: str) -> str:
        return str(self.paths.get(source, source))

    @cached_property
    def policy_tokenizer(self) -> PreTrainedTokenizerFast:
        """Of the model that becomes the policy; the preference model shares it (``check_models``)."""
        return load_tokenizer(self.path(self.config.supervision.base_model))

    def prompts(self, axis: Axis) -> Iterator[Prompt]:
        """The training prompts of one axis; bad rows are quarantined as the file is read."""
        source = self.config.data.red_team if axis == "red_team" else self.config.data.helpful
        return self.read(source, axis)

    def read(self, source: str, axis: Axis) -> Iterator[Prompt]:
        """Prompts of a source; those of the miniature keep its name in their ids, wherever its files are cached."""
        path = self.path(source)
        for prompt in read_prompts(path, axis, self.quarantine):
            if path == source:
                yield prompt
            else:
                yield replace(prompt, id=row_id(source, prompt.source_row), source_file=source)

    def num_prompts(self, axis: Axis) -> int:
        """How many there are, as the stage ``read`` counted them."""
        return self.run_dir.rows(f"prompts_{axis}")["rows_out"]

    def quarantine(self, row: Quarantined) -> None:
        self.run_dir.journal.quarantine(row)

    @asynccontextmanager
    async def pool(self, role: str, model: str) -> AsyncIterator[Pool]:
        """The pool of ``role`` serving ``model``. It stays open until another model is wanted, because starting
        engines costs more than many stages do."""
        await self.start(role, model)
        yield self.current_pool(role)

    async def start(self, role: str, model: str) -> None:
        """Open a pool that will be wanted, unless it is open."""
        if role in self._open and self._open[role][0] != model:
            await self.release(role)
        if role not in self._open:
            self.run_dir.events.write("pool_starting", role=role, model=model)
            self._open[role] = (model, await self.pools.open(role, model))

    def current_pool(self, role: str) -> Pool:
        """The pool of ``role`` that is open."""
        return self._open[role][1]

    async def release(self, *roles: str) -> None:
        """Close the pools of ``roles`` (all, when none is named)."""
        for role in roles or tuple(self._open):
            if role in self._open:
                _, pool = self._open.pop(role)
                await pool.close()
