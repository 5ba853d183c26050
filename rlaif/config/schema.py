"""The configuration: one frozen tree of sections, keys equal to fields, one home for each value.

Imports neither torch nor vLLM nor Ray (a test proves it). Files and overrides are read in ``config_file``.
Sizes of models, batches and pools of the reference run are in ``configs/paper.yaml``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Dtype = Literal["float32", "bfloat16"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Data(Section):
    """Where rows come from: a file (.jsonl, .csv, .parquet), a directory of them, ``hf:NAME`` or ``miniature:NAME``."""

    red_team: str = Field("miniature:red_team", description="prompts that ask for harm")
    helpful: str = Field("miniature:helpful", description="prompts that ask for help")
    helpful_pairs: str | None = Field("miniature:helpful_pairs", description="human chosen/rejected comparisons")
    votes: str | None = Field("miniature:votes", description="questions with voted answers, for PM pretraining")
    comparisons: str | None = Field(None, description="pairs of answers, for `rlaif label` alone")


class Miniature(Section):
    """The embedded world with known truth; used where a source or a model is ``miniature:NAME``."""

    lexicon: str | None = Field(None, description="YAML lexicon; none: the shipped one")
    seed: int = 0
    slot_bias: float = Field(2.0, description="planted in the feedback model's weights, log-odds towards slot A")
    cache_dir: str = "~/.cache/rlaif/miniature"


class SamplingSettings(Section):
    """How the policy answers, everywhere: first answers, comparisons, rollouts and evaluation."""

    temperature: Positive = 1.0
    max_tokens: Count = 64


class ScriptedEngineSettings(Section):
    """The validating engine without weights."""

    latency_s: Annotated[float, Field(ge=0)] = 0.0
    concurrency: Count | None = Field(None, description="requests served at once; none: any number")
    failure_rate: Fraction = 0.0
    slot_bias: float = Field(0.0, description="added to the log-odds of the first of two choices")


class Autoscale(Section):
    """A pool that grows and shrinks by itself between its ``min`` and ``max``, an engine at a time."""

    enabled: bool = False
    up_after_s: Seconds = Field(10, description="all engines full and rows waiting this long: one engine more")
    down_after_s: Seconds = Field(60, description="room of one engine unused this long: one engine less, drained")


class PoolSettings(Section):
    """A pool of engines of one role. ``min`` and ``max`` bound the number of engines."""

    engine: Literal["vllm", "hf", "scripted"] = "vllm"
    min: Count = 1
    max: Count = 1
    cpus: Annotated[float, Field(ge=0)] = Field(1.0, description="CPUs of one engine")
    gpus: Annotated[float, Field(ge=0)] = Field(0.0, description="GPUs of one tensor-parallel rank")
    gpu_memory_fraction: Fraction = 0.9
    tensor_parallel: Count = 1
    dtype: Dtype = "float32"
    max_length: Count = Field(1024, description="tokens of prompt and completion together")
    kv_cache_gib: Positive = Field(1.0, description="CPU engines only; GPUs use gpu_memory_fraction")
    threads: Count = Field(1, description="CPU threads of one engine")
    chunk_rows: Count = Field(32, description="rows sent to an engine at once")
    max_in_flight: Count = Field(128, description="rows that one engine holds at once")
    start_timeout_s: Seconds = 600
    on_new_weights: Literal["finish", "pause"] = Field(
        "finish", description="what becomes of running requests: finished first, or frozen and continued under them"
    )
    idle_timeout_s: Seconds = Field(300, description="an engine that holds rows and returns none this long is hung")
    placement: dict[str, Positive] = Field(default_factory=dict, description="custom Ray resources of one engine")
    autoscale: Autoscale = Autoscale()
    scripted: ScriptedEngineSettings = ScriptedEngineSettings()


class Generator(PoolSettings):
    model: str = Field("miniature:helpful_only", description="the helpful-only model; later the policy takes its place")


class Labeller(PoolSettings):
    model: str = Field("miniature:feedback", description="the feedback model; never shares weights with the policy")
    price_per_hour: Annotated[float, Field(ge=0)] = Field(0.0, description="money that one engine costs in an hour")


class Scorer(PoolSettings):
    """Serves the preference model that the run fits, so it has no model of its own."""


class ScriptedTrainerSettings(Section):
    """The validating trainer without weights."""

    row_s: Annotated[float, Field(ge=0)] = Field(0.0, description="seconds that a row takes to be learned")


class Trainer(Section):
    """DeepSpeed ranks under Ray Train; of fixed size in a run."""

    engine: Literal["deepspeed", "scripted"] = "deepspeed"
    ranks: Count = 1
    cpus: Annotated[float, Field(ge=0)] = Field(1.0, description="CPUs of one rank")
    gpus: Annotated[float, Field(ge=0)] = Field(0.0, description="GPUs of one rank")
    threads: Count = Field(1, description="CPU threads of one rank")
    zero_stage: Literal[0, 1, 2, 3] = 0
    cpu_offload: bool = False
    dtype: Dtype = "float32"
    micro_batch_tokens: Count = Field(8192, description="padded tokens of one forward pass on one rank")
    start_timeout_s: Seconds = 600
    step_timeout_s: Seconds = Field(600, description="longest silence of ranks: a batch, held-out rows, a save")
    max_failures: Annotated[int, Field(ge=0)] = Field(2, description="restarts of the group before the run fails")
    placement: dict[str, Positive] = Field(default_factory=dict, description="custom Ray resources of one rank")
    scripted: ScriptedTrainerSettings = ScriptedTrainerSettings()


class CritiqueRevision(Section):
    rounds: Annotated[int, Field(ge=1, le=4)] = 2
    critique: bool = Field(True, description="false: revise without a critique (the paper's ablation)")
    draw: Literal["uniform", "weighted"] = "uniform"
    examples: str | None = Field(None, description="YAML list of few-shot transcripts to put in front")
    max_critique_tokens: Count = 64
    max_revision_tokens: Count = 64


class Optimization(Section):
    """One pass of supervised optimisation: constant rate after a linear warm-up."""

    epochs: Count = 1
    batch_size: Count = Field(32, description="sequences (SFT) or pairs (PM) of one optimizer step, over all ranks")
    learning_rate: Positive = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0


class Supervision(Section):
    """Fine-tuning the base on revisions and helpful samples: SL-CAI."""

    base_model: str = "miniature:base"
    train_on: Literal["final", "all"] = Field("all", description="the last revision of a chain, or every round's")
    helpful_samples: Count = Field(2, description="answers of the helpful-only model per helpful prompt")
    max_length: Count = 512
    optimization: Optimization = Optimization()


class Gate(Section):
    """Limits that labels must meet before a preference model is fitted on them."""

    max_flip_rate: Fraction = Field(0.6, description="share of pairs whose winner changes with the order")
    min_order_correlation: Fraction = Field(
        0.3, description="of both orders' log-odds; below, more than half of an averaged label's variance is noise"
    )
    max_invalid_rate: Fraction = 0.05
    min_gold_accuracy: Fraction = Field(0.5, description="agreement with labels that the pairs came with, if any did")
    override: tuple[Literal["flip_rate", "order_correlation", "invalid_rate", "gold_accuracy"], ...] = Field(
        (), description="limits to pass by, by name"
    )


class Reasoning(Section):
    """Let the labeller reason, step by step, before the letters are read off."""

    mode: Literal["off", "greedy", "sampled"] = "off"
    rationales: Count = Field(1, description="sampled: rationales of each order, whose labels are averaged")
    temperature: Positive = Field(1.0, description="sampled: of the rationales")
    max_tokens: Count = 256
    clamp: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.4, description="labels are kept within [clamp, 1 - clamp]: reasoned letters are overconfident"
    )


class Labelling(Section):
    aggregation: Literal["prob_mean", "logit_mean", "agree_or_tie"] = "prob_mean"
    draw: Literal["uniform", "weighted"] = "uniform"
    principles: Count = Field(1, description="principles that each pair is judged by, one after the other; averaged")
    reasoning: Reasoning = Reasoning()
    examples: str | None = Field(None, description="YAML list of judged pairs to put in front (few-shot)")
    template: str | None = Field(None, description="text file with another wording of the two-choice question")
    min_letter_mass: Fraction = Field(0.5, description="joint probability of the two letters below which it is invalid")
    timeout_s: Seconds = Field(600, description="longest time for one label, both orders and all principles")
    gate: Gate = Gate()


class Refresh(Section):
    """Fitting the preference model again, on fresh answers of the policy, while the policy is trained."""

    every: Annotated[int, Field(ge=0)] = Field(0, description="batches between refreshes; 0: never")
    comparisons: Count = Field(256, description="fresh pairs of answers that are labelled for each refresh")
    max_lag: Annotated[int, Field(ge=0)] = Field(
        0, description="batches that go on with the older preference model meanwhile; 0: RL waits for the new one"
    )
    max_pairs: Count | None = Field(
        None, description="pairs of one refresh at most: the fresh ones and a random draw of older ones; null: all"
    )
    probes: Annotated[int, Field(ge=2)] = Field(64, description="held-out dialogues on which scores are re-centred")
    value_warmup_epochs: Annotated[int, Field(ge=0)] = Field(
        1, description="passes over the first batch of a new model that train the value function alone"
    )


class PreferenceModel(Section):
    base_model: str = "miniature:base"
    pretraining: Optimization = Optimization()
    fit: Optimization = Optimization()
    harmless_weight: Positive = Field(1.0, description="loss weight of AI harmlessness labels; helpful pairs have 1")
    helpful_per_harmless: Positive = Field(0.74, description="helpful pairs for each AI label (the paper: 135/183)")
    heldout_fraction: Fraction = Field(0.1, description="share of prompts kept out of the fit for its report")
    max_length: Count = 512
    shuffle_labels: bool = Field(False, description="permute the AI labels among the pairs: the control experiment")
    test_split: bool = Field(
        False, description="fit on half of the pairs, and models/preference_model_test on the other half"
    )
    refresh: Refresh = Refresh()


class KL(Section):
    """The per-token penalty beta * (log policy - log reference) inside the reward (k1)."""

    controller: Literal["fixed", "adaptive"] = "fixed"
    coefficient: Annotated[float, Field(ge=0)] = 0.1
    target: Positive = Field(6.0, description="adaptive: the mean sequence-summed KL to steer to, nats")
    horizon: Positive = Field(10000, description="adaptive: samples over which the coefficient adapts")


class Reinforcement(Section):
    algorithm: Literal["ppo", "rloo", "grpo"] = "ppo"
    reward: Literal["preference_model", "direct"] = Field(
        "preference_model", description="direct: the feedback model's own rating; no preference model is fitted"
    )
    batches: Count = 40
    batch_size: Count = Field(128, description="rollouts learned per batch, over all ranks")
    group_size: Count = Field(1, description="rollouts of one prompt; at least 2 for rloo and grpo")
    minibatch_size: Count = Field(64, description="rollouts of one optimizer step")
    epochs: Annotated[int, Field(ge=1, le=4)] = 1
    helpful_fraction: Fraction = Field(0.5, description="share of helpful prompts in a batch")
    learning_rate: Positive = Field(1e-6, description="at the first batch; falls linearly to zero at the last")
    value_learning_rate: Positive = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    max_grad_norm: Positive = 1.0
    gamma: Fraction = 1.0
    gae_lambda: Fraction = 0.95
    clip: Positive = 0.2
    value_clip: Positive = 0.2
    importance_cap: Positive = Field(2.0, description="cap of exp(old - rollout), the engine/learner correction")
    kl: KL = KL()
    reward_normalization: Literal["mean", "mean_std"] = Field(
        "mean", description="running centring alone keeps the preference model's log-odds unit"
    )
    helpfulness_penalty: Annotated[float, Field(ge=0)] = Field(
        0.0, description="extra weight of helpful prompts per unit of score that they fall below SL-CAI's; 0: no guard"
    )
    helpfulness_margin: Annotated[float, Field(ge=0)] = Field(
        0.1, description="units of score below SL-CAI's that are not yet a fall"
    )
    truncation_penalty: Annotated[float, Field(ge=0)] = Field(
        1.0, description="taken off the normalised reward of an answer without EOS"
    )
    checkpoint_every: Count = Field(20, description="batches between checkpoints; a resumed run goes on from the last")
    keep_checkpoints: Count = Field(2, description="the last ones that are kept; the one with the best score is, too")
    max_staleness: Annotated[int, Field(ge=0)] = Field(
        0, description="batches that a rollout may be behind; 0: in step"
    )
    stall_timeout_s: Seconds = Field(3600, description="longest that one loop may wait for another")


class Evaluation(Section):
    red_team: str = "miniature:eval_red_team"
    helpful: str = "miniature:eval_helpful"
    answers_per_cell: Count = Field(500, description="answers of each snapshot on each axis, at least")


class Resources(Section):
    """What the run may use: on one machine what Ray is started with, on a cluster what it must have."""

    address: str | None = Field(None, description="Ray cluster to join; none: start one on this machine")
    cpus: Positive = 8
    gpus: Annotated[int, Field(ge=0)] = 0
    custom: dict[str, Positive] = Field(default_factory=dict)
    object_store_gib: Positive = Field(1.0, description="on a machine that Ray is started on")


class Config(Section):
    seed: int = 0
    run_dir: str = "runs/run"
    constitution: str = Field("sixteen_principles", description="a YAML file, or the name of a shipped one")
    dialogue_format: Literal["human_assistant", "chat_template"] = "human_assistant"
    data: Data = Data()
    miniature: Miniature = Miniature()
    sampling: SamplingSettings = SamplingSettings()
    generator: Generator = Generator()
    labeller: Labeller = Labeller()
    scorer: Scorer = Scorer()
    policy_trainer: Trainer = Trainer()
    preference_trainer: Trainer = Trainer()
    critique_revision: CritiqueRevision = CritiqueRevision()
    supervision: Supervision = Supervision()
    labelling: Labelling = Labelling()
    preference_model: PreferenceModel = PreferenceModel()
    reinforcement: Reinforcement = Reinforcement()
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
