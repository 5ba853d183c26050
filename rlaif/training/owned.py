"""What a rank owns of a trained model under DeepSpeed: stretches of float32 weights, and Adam's moments of them.

This is the one place that knows how each ZeRO stage lays them out. Stage 0 leaves everything to every rank; 1 and 2 cut
all parameters, one behind the other, into as many parts as there are ranks; 3 cuts each parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlaif.jobs import Rank

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Neighbouring numbers of a flattened parameter. ``values``: views, to be read or filled, of the weights and of
    both moments, each [n] in float32."""

    name: str
    start: int  #: in the flattened parameter
    of: int  #: numbers of the whole parameter
    values: dict[str, Tensor]

    @property
    def end(self) -> int:
        return self.start + int(self.values[WEIGHT].numel())


class Owned:
    """``optimizer``: DeepSpeed's, of ``module`` under ZeRO ``stage``."""

    def __init__(self, module: nn.Module, optimizer: Any, stage: int, rank: Rank) -> None:
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._optimizer = optimizer
        self._adam: torch.optim.Optimizer = optimizer.optimizer if stage else optimizer
        self._stage = stage
        self._rank = rank

    @property
    def is_partitioned(self) -> bool:
        """Whether other ranks own something else."""
        return self._stage > 0

    def stretches(self) -> Iterator[Stretch]:
        """In the order of the module's parameters."""
        if self._stage == 0:
            for name, parameter in self._parameters.items():
                yield self._stretch(name, parameter.data, 0, parameter.numel(), start=0, of=parameter.numel())
        elif self._stage < 3:
            yield from self._parts_of_all()
        else:
            yield from self._parts_of_each()

    def _parts_of_all(self) -> Iterator[Stretch]:
        for name, parameter in self._parameters.items():
            part = parameter._hp_mapping
            if part is not None:
                master = self._optimizer.single_partition_of_fp32_groups[part.param_group_index]
                place, start = part.hp_fragment_address, part.lp_fragment_address.start
                yield self._stretch(name, master, place.start, place.numel, start=start, of=parameter.numel())

    def _parts_of_each(self) -> Iterator[Stretch]:
        for name, parameter in self._parameters.items():
            group, offset, padded = self._optimizer.grad_position[self._optimizer.get_param_id(parameter)]
            master = self._optimizer.fp32_partitioned_groups_flat[group]
            start, of = self._rank.index * padded, parameter.ds_numel
            if start < of:
                yield self._stretch(name, master, offset, min(padded, of - start), start=start, of=of)

    def _stretch(self, name: str, master: Tensor, offset: int, length: int, *, start: int, of: int) -> Stretch:
        state = self._state(master if self._stage else self._parameters[name])
        tensors = {WEIGHT: master, **{moment: state[moment] for moment in MOMENTS}}
        views = {key: tensor.detach().view(-1).narrow(0, offset, length) for key, tensor in tensors.items()}
        return Stretch(name=name, start=start, of=of, values=views)

    @property
    def adam_steps(self) -> int:
        """Steps that Adam has made; those that were skipped are not among them."""
        return max((int(state["step"]) for state in self._adam.state.values() if "step" in state), default=0)

    @adam_steps.setter
    def adam_steps(self, steps: int) -> None:
        for state in self._adam.state.values():
            state["step"].fill_(steps)

    def _state(self, master: Tensor) -> dict[str, Tensor]:
        """Adam's own, which it makes in its first step."""
        state: dict[str, Tensor] = self._adam.state[master]
        if not state:
            state["step"] = torch.zeros((), device=master.device)
            state |= {moment: torch.zeros_like(master, requires_grad=False) for moment in MOMENTS}
        return state

    def spread(self) -> None:
        """Make the weights that the passes use those of the stretches, on all ranks; every rank must call it."""
        if self._stage in (1, 2):
            self._optimizer.update_lp_params()
        elif self._stage == 3:
            for group in range(len(self._optimizer.fp32_partitioned_groups_flat)):
                self._optimizer._reassign_or_swap_out_partitioned_parameters(group)
            if persistent := self._optimizer.persistent_parameters:  # small ones, whole on every rank
                persistent[0].all_gather(persistent)
