"""What every stage is given: the configuration, the run directory, and where pools and trainers come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from rlaif.config.trainer import Trainer
from rlaif.constitution.principles import Constitution
from rlaif.interfaces import Pool, Pools, Trainers
from rlaif.prompting.dialogues import DialogueFormat
from rlaif.prompting.formats import FormatRole, format_of, policy_tokenizer
from rlaif.records import Quarantined
from rlaif.sizes.phases import PHASES, sizes
from rlaif.stages.user_data import UserData
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
class Run(UserData):
    """One run."""

    constitution: Constitution
    run_dir: RunDir
    pools: Pools
    trainers: Trainers
    progress: Progress
    _open: dict[str, tuple[str, Pool]] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)  #: of the roles of this phase

    @cached_property
    def policy_tokenizer(self) -> PreTrainedTokenizerFast:
        """Of the model that becomes the policy; the preference model shares its vocabulary (``check_models``)."""
        return policy_tokenizer(self.path(self.config.supervision.base_model), self.format("policy"))

    def saved_policy_tokenizer(self) -> str:
        """A directory with the policy's tokenizer, for the trainers, which save it with their models."""
        path = self.run_dir.path.absolute() / "models" / "policy_tokenizer"
        self.policy_tokenizer.save_pretrained(path)
        return str(path)

    def format(self, role: FormatRole) -> DialogueFormat:
        """The dialogue format of one role; its chat template is told the day on which the run began."""
        return format_of(self.config, role, self.run_dir.began)

    def quarantine(self, row: Quarantined) -> None:
        self.run_dir.journal.quarantine(row)

    # -------------------------------------------------------------------------------------------------------- pools

    async def begin(self, phase: str) -> None:
        """Enter a phase: pools that it does not use close first, which gives what they hold to those that it does."""
        roles = PHASES[phase](self.config)
        await self._close(role for role in tuple(self._open) if role not in roles)
        self._sizes.clear()
        self._sizes.update(sizes(self.config, roles))
        self.run_dir.events.write("phase_began", phase=phase, sizes=dict(self._sizes))

    def fit_trainer(self, role: str) -> Trainer:
        """The trainer of a fit, with the ranks that it has in this phase."""
        trainer: Trainer = getattr(self.config, role)
        return trainer.model_copy(update={"ranks": self._sizes[role]})

    @asynccontextmanager
    async def pool(self, role: str, model: str) -> AsyncIterator[Pool]:
        """The pool of ``role`` serving ``model``. It stays open until another model is wanted, or a phase begins that
        does not use it, because starting engines takes long."""
        await self.start(role, model)
        yield self.current_pool(role)

    async def start(self, role: str, model: str) -> None:
        """Open a pool that will be wanted, unless it is open."""
        if role in self._open and self._open[role][0] != model:
            await self.release(role)
        if role not in self._open:
            self.run_dir.events.write("pool_starting", role=role, model=model)
            self._open[role] = (model, await self.pools.open(role, model, self._sizes[role]))

    def current_pool(self, role: str) -> Pool:
        """The pool of ``role`` that is open."""
        return self._open[role][1]

    async def release(self, *roles: str) -> None:
        """Close the pools of ``roles`` (all, when none is named)."""
        await self._close(roles or tuple(self._open))

    async def _close(self, roles: Iterable[str]) -> None:
        for role in roles:
            if role in self._open:
                _, pool = self._open.pop(role)
                await pool.close()
