"""Bytes of one trainer rank, after DeepSpeed's and torch's own allocations; a test measures each beside its formula.

Legend: ``P`` parameters, ``N`` ranks, ``w`` bytes of a number in the trainer's dtype. Source of the state's sizes: ZeRO
(Rajbhandari et al. 2020, section 3); of buckets and copies: DeepSpeed's defaults, ``runtime/zero/config.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlaif.config.trainer import Trainer
from rlaif.sizes.architecture import WIDTH, Architecture
from rlaif.training.checkpoint_files import FILE_BYTES
from rlaif.training.deepspeed_config import effective_zero_stage
from rlaif.training.gathering import BUCKET_BYTES
from rlaif.training.models import HEAD_LOGITS
from rlaif.training.partitioned import READ_BYTES
from rlaif.training.saving import SHARD_BYTES

GIBIBYTE = 2**30
BUCKET = 500_000_000  #: ``reduce_bucket_size``: numbers that gradients are reduced in, allocated whole
LIVE = 1_000_000_000  #: ``stage3_max_live_parameters``: numbers gathered at most; ``sub_group_size`` is as large
CUDA_CONTEXT = int(0.6 * GIBIBYTE)  #: of a process with torch, cuBLAS and NCCL's buffers: assumed, not measured here
FRAGMENTATION = 0.04  #: of what torch's allocator holds: assumed
RANK_HOST = int(3.0 * GIBIBYTE)  #: a rank's process on a GPU: CUDA, torch and Ray
RANK_HOST_CPU = int(1.2 * GIBIBYTE)  #: likewise, without CUDA
#: Bytes of one logit while the head's backward pass works on a chunk: in the dtype, as float32, its log-softmax, the
#: gradients of the last two.
LOGIT_BYTES = 16

Parts = dict[str, int]  #: bytes by what they hold


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Bytes of one rank: ``device`` on its GPU, ``host`` beside it. A rank without a GPU has all of it on the host."""

    device: Parts
    host: Parts = field(default_factory=dict)

    @property
    def on_device(self) -> int:
        return sum(self.device.values())

    @property
    def on_host(self) -> int:
        return sum(self.host.values())


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that a rank trains. A scorer's head is one row; the value function has settings of its own."""

    architecture: Architecture
    is_scorer: bool = False
    is_value: bool = False

    def settings(self, trainer: Trainer) -> Trainer:
        """``trainer`` as it trains this model."""
        return trainer.of_value if self.is_value else trainer

    @property
    def parameters(self) -> int:
        return self.architecture.scorer_parameters if self.is_scorer else self.architecture.parameters

    @property
    def largest(self) -> int:
        """Of one tensor: the embeddings."""
        return self.architecture.vocabulary * self.architecture.hidden


def layer_bytes(model: Architecture, width: int) -> int:
    """What one layer keeps of one token for its backward pass, when it is not checkpointed.

    Two norms keep their input as float32, the normalised and the scaled result. Attention keeps queries, keys, values,
    its result, and a float32 for each head. The gated network keeps both projections, the gate's activation, and their
    product.
    """
    norms = 2 * (4 + 2 * width) * model.hidden
    attention = width * (2 * model.queries + 2 * model.keys) + 4 * model.heads
    head_norms = (4 + width) * (model.queries + model.keys) if model.norms_heads else 0
    return norms + attention + head_norms + 4 * width * model.intermediate


def activation_bytes(model: Architecture, trainer: Trainer, tokens: int) -> int:
    """At the peak of a backward pass over ``tokens``: what is kept of all layers; with checkpoints the inputs of each,
    and all of the one that is computed again."""
    width = WIDTH[trainer.dtype]
    if trainer.checkpoints_activations:
        return tokens * (model.layers * width * model.hidden + layer_bytes(model, width))
    return tokens * model.layers * layer_bytes(model, width)


def head_bytes(model: Trained, trainer: Trainer, tokens: int) -> int:
    """Of the output head for at most ``tokens`` targets; it works on a chunk at a time. A scorer's is nothing."""
    if model.is_scorer:
        return 0
    return LOGIT_BYTES * min(tokens * model.architecture.vocabulary, HEAD_LOGITS)


def state_bytes(model: Trained, trainer: Trainer) -> RankMemory:
    """Weights, gradients, optimizer and buffers of one model on one rank, at the end of a backward pass that is not a
    step's first.

    The optimizer has float32 weights and two moments for each; stage 0 in float32 needs no second weights.
    """
    parameters = model.parameters
    stage, width, ranks = effective_zero_stage(trainer), WIDTH[trainer.dtype], trainer.ranks
    share = -(-parameters // ranks)
    weights = width * (share if stage == 3 else parameters)
    gradients = _gradient_bytes(parameters, trainer)
    optimizer = 8 * parameters if stage == 0 else 12 * share
    # stage 0 flattens the gradients that there are into a bucket, the others allocate it whole
    buffers = width * (min(parameters, BUCKET) if stage == 0 else BUCKET)
    working = {"buffers": buffers, "gathered": width * min(parameters, LIVE) if stage == 3 and ranks > 1 else 0}
    if not trainer.cpu_offload:
        return RankMemory(device={"weights": weights, "gradients": gradients, "optimizer": optimizer, **working})
    # float32 gradients lie beside the optimizer's state; stage 3 has sums of them, and the weights, on the host as well
    if stage == 3:
        return RankMemory(device=working, host={"optimizer": optimizer + 4 * share + gradients, "weights": weights})
    # the others have a copy of this rank's part, the sums unless those are on the device, and room for one gradient
    copies = (1 if _sums_on_device(trainer) else 2) * width * share
    host = {"optimizer": optimizer + 4 * share + copies, "buffers": width * model.largest}
    working["buffers"] += width * model.largest
    return RankMemory(device={"weights": weights, "gradients": gradients, **working}, host=host)


def _gradient_bytes(parameters: int, trainer: Trainer) -> int:
    """Sums of earlier passes, and gradients of this one.

    Stage 1 has its parameters' gradients and a copy of them. Under stage 2, those of other ranks wait until a bucket is
    full: measured for models smaller than a bucket, and taken to stop at one bucket for larger ones.
    """
    stage, width = effective_zero_stage(trainer), WIDTH[trainer.dtype]
    share = -(-parameters // trainer.ranks)
    if stage == 3:
        return WIDTH[trainer.grad_accum_dtype] * share if trainer.dtype == "bfloat16" else width * share
    if stage < 2:
        return width * parameters * (2 if stage == 1 and not trainer.cpu_offload else 1)
    if _sums_on_device(trainer):
        return 4 * share + width * min(parameters, BUCKET)
    return width * ((0 if trainer.cpu_offload else share) + share + min(parameters - share, BUCKET))


def _sums_on_device(trainer: Trainer) -> bool:
    """Whether stage 2 sums in float32 what comes in bfloat16: into one tensor, which is not offloaded."""
    return trainer.dtype == "bfloat16" and trainer.grad_accum_dtype == "float32"


def step_bytes(parameters: int, trainer: Trainer) -> int:
    """Float32 gradients that the optimizer's step makes of the sums, on the device."""
    stage = effective_zero_stage(trainer)
    if stage == 0 or trainer.cpu_offload or (stage == 2 and _sums_on_device(trainer)):
        return 0
    share = -(-parameters // trainer.ranks)
    return 4 * (min(share, LIVE) if stage == 3 else share)


def frozen_bytes(parameters: int, trainer: Trainer) -> RankMemory:
    """A model that is only read, while it is not in use."""
    size = WIDTH[trainer.dtype] * parameters
    if trainer.places_reference == "host":
        return RankMemory(device={}, host={"reference": size})
    share = -(-size // trainer.ranks) if trainer.places_reference == "partitioned" else size
    return RankMemory(device={"reference": share})


def rank_memory(
    trained: Sequence[Trained], frozen: Sequence[Trained], trainer: Trainer, tokens: int, checkpoint: int = 0
) -> RankMemory:
    """One rank that trains and reads models, one at a time, with forward passes of ``tokens``. ``checkpoint``: bytes
    that it holds on the host while it writes one."""
    states = [state_bytes(model, model.settings(trainer)) for model in trained]
    states += [frozen_bytes(model.parameters, trainer) for model in frozen]
    device, host = _sum([state.device for state in states]), _sum([state.host for state in states])
    passes = [_pass(model, model.settings(trainer), tokens) for model in trained]
    device |= _larger([*passes, *(_reading(model, trainer, tokens) for model in frozen)])
    saved = [_saving_bytes(model, trainer) for model in trained]
    host["files"] = max(_loading_bytes(trained, frozen, trainer), *saved)
    host["checkpoint"] = checkpoint
    if trainer.gpus == 0:
        return RankMemory(device={}, host=_sum([device, host, {"process": RANK_HOST_CPU}]))
    device["context"] = CUDA_CONTEXT + int(FRAGMENTATION * sum(device.values()))
    return RankMemory(device=device, host={**host, "process": RANK_HOST})


def _pass(model: Trained, trainer: Trainer, tokens: int) -> Parts:
    """What comes on top of the state at the fullest moment of a step: in a backward pass, or in the optimizer."""
    backward = {
        "activations": activation_bytes(model.architecture, trainer, tokens),
        "head": head_bytes(model, trainer, tokens),
    }
    step = {"step": step_bytes(model.parameters, trainer)}
    return _larger([backward, step])


def _reading(model: Trained, trainer: Trainer, tokens: int) -> Parts:
    """What comes on top of the state while a frozen model is in use: one layer's activations, and on a GPU the weights
    themselves if they are in host memory otherwise; partitioned ones are gathered, layer by layer."""
    comes = trainer.places_reference == "host" and trainer.gpus > 0
    return {
        "reference": WIDTH[trainer.dtype] * model.parameters if comes else 0,
        "activations": tokens * layer_bytes(model.architecture, WIDTH[trainer.dtype]),
        "head": head_bytes(model, trainer, tokens),
    }


def _loading_bytes(trained: Sequence[Trained], frozen: Sequence[Trained], trainer: Trainer) -> int:
    """On the host, while a rank reads weights. The first trained model and the frozen ones are read before any goes to
    its device; those that stay in host memory are counted there."""
    first, *later = [_read_bytes(model, trainer, trainer.zero_stage == 3) for model in trained]
    together = 0
    if trainer.places_reference != "host":
        together = sum(_read_bytes(model, trainer, trainer.places_reference == "partitioned") for model in frozen)
    return max([first + together, *later])


def _read_bytes(model: Trained, trainer: Trainer, is_partitioned: bool) -> int:
    """The whole model; or, when each rank reads its own part, a piece of a file and the largest tensor, which is whole
    until it is partitioned. Stacked experts cannot be read in parts."""
    size = WIDTH[trainer.dtype] * model.parameters
    if not is_partitioned or model.architecture.stacked:
        return size
    return min(size, READ_BYTES + WIDTH[trainer.dtype] * model.largest)


def _saving_bytes(model: Trained, trainer: Trainer) -> int:
    """On the host of rank 0: a shard that is being filled, and a bucket of tensors; of stacked experts, all."""
    size = WIDTH[trainer.dtype] * model.parameters
    return size if model.architecture.stacked else min(size, SHARD_BYTES + BUCKET_BYTES)


def written_bytes(trained: Sequence[Trained], trainer: Trainer, in_background: bool) -> int:
    """On the host, while a rank writes its part of a checkpoint: all of that part; if learning waits, a file, and the
    stretch that was one too many."""
    ranks = trainer.ranks if effective_zero_stage(trainer) else 1
    parts = [checkpoint_bytes(-(-model.parameters // ranks)) for model in trained]
    if in_background:
        return sum(parts)
    files = [FILE_BYTES + checkpoint_bytes(-(-model.largest // ranks)) for model in trained]
    return max(map(min, parts, files))


def checkpoint_bytes(parameters: int) -> int:
    """Of one trained model on disk, the files of all ranks together: weights and both moments, in float32."""
    return 12 * parameters


def _larger(parts: Sequence[Parts]) -> Parts:
    sizes = [sum(each.values()) for each in parts]
    return parts[sizes.index(max(sizes))]


def _sum(parts: Sequence[Parts]) -> Parts:
    total: Parts = {}
    for each in parts:
        for name, size in each.items():
            total[name] = total.get(name, 0) + size
    return total
