"""The trainers' section of the configuration: DeepSpeed ranks, what they share and what they keep."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlaif.config.section import Count, CountOrZero, Dtype, NonNegative, Positive, Seconds, Section, Share, Units


class ScriptedTrainerSettings(Section):
    """The validating trainer without weights."""

    load_s: NonNegative = Field(0.0, description="seconds that a resident trainer takes to start")
    row_s: NonNegative = Field(0.0, description="seconds that it takes to learn one row")


class Trainer(Section):
    """DeepSpeed ranks under Ray Train; their number is fixed during a fit, and until reinforcement is resumed."""

    engine: Literal["deepspeed", "scripted"] = Field("deepspeed", description="scripted: no weights, for tests")
    ranks: Units = Field(1, description="number of data-parallel processes; without GPUs they share one node")
    fit_ranks: Units | Literal["auto"] | None = Field(
        None, description="ranks of a fit, which has the machine to itself; auto: all that fit; null: as ranks"
    )
    cpus: Share = Field(1.0, description="CPUs reserved for one rank")
    gpus: Share = Field(0.0, description="GPUs reserved for one rank; may be a fraction where there is one rank")
    threads: Units = Field(1, description="CPU threads of one rank")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0, description="what ranks share: 1 optimizer state, 2 gradients as well, 3 weights as well; 0: nothing"
    )
    cpu_offload: bool = Field(False, description="keep the optimizer state (with zero_stage 3 the weights) on the CPU")
    dtype: Dtype = Field("float32", description="number format of the weights; with bfloat16 the optimizer has float32")
    grad_accum_dtype: Dtype = Field("float32", description="number format in which a step's micro-batches are summed")
    reference_placement: Literal["device", "host", "partitioned"] | None = Field(
        None, description="where the reference is between uses; null: as zero_stage and cpu_offload place the policy"
    )
    value_cpu_offload: bool | None = Field(None, description="cpu_offload of the value function; null: as cpu_offload")
    checkpoint_activations: bool | None = Field(
        None, description="compute activations again in the backward pass instead of keeping them; null: on GPUs"
    )
    micro_batch_tokens: Count = Field(8192, description="padded tokens of one forward pass on one rank")
    start_timeout_s: Seconds = Field(
        600, description="longest time for the ranks to be placed, and longest silence while they load their models"
    )
    silence_timeout_s: Seconds = Field(
        600, description="ranks are hung when for so long none has finished a pass, or read or written a MiB of files"
    )
    max_failures: CountOrZero = Field(2, description="restarts of the ranks before the run fails; 0: none")
    max_skipped_steps: CountOrZero = Field(3, description="steps whose gradient is not finite, before the run fails")
    placement: dict[str, Positive] = Field(default_factory=dict, description="custom Ray resources of one rank")
    scripted: ScriptedTrainerSettings = Field(ScriptedTrainerSettings(), description="behaviour of engine: scripted")

    @property
    def shares_a_node(self) -> bool:
        """Whether all ranks are on one node. Those without GPUs are: gloo has no secret, so it must stay on
        loopback."""
        return self.gpus == 0

    @property
    def checkpoints_activations(self) -> bool:
        return self.gpus > 0 if self.checkpoint_activations is None else self.checkpoint_activations

    @property
    def places_reference(self) -> Literal["device", "host", "partitioned"]:
        if self.reference_placement is not None:
            return self.reference_placement
        return "partitioned" if self.zero_stage == 3 else "host" if self.cpu_offload else "device"

    @property
    def of_value(self) -> Trainer:
        """As the value function is trained."""
        return (
            self if self.value_cpu_offload is None else self.model_copy(update={"cpu_offload": self.value_cpu_offload})
        )

    @property
    def optimizer_threads(self) -> int:
        """CPU threads of a rank: all of its CPUs where the optimizer runs on them."""
        return max(self.threads, int(self.cpus)) if self.cpu_offload else self.threads
