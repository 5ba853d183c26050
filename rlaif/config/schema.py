"""The configuration: one frozen tree of sections, keys equal to fields, one home and one description for each value.

Imports neither torch nor vLLM nor Ray (a test proves it). Files and overrides are read in ``rlaif.config.files``.
The sizes of models, batches and pools in the paper's run are in ``configs/paper.yaml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rlaif.config.algorithms import ALGORITHMS
from rlaif.config.evaluation import Evaluation
from rlaif.config.node import Node
from rlaif.config.section import (
    Count,
    CountOrZero,
    Dtype,
    Fraction,
    Gibibytes,
    NonNegative,
    Positive,
    Seconds,
    Section,
    Share,
    Units,
)
from rlaif.config.source import RowLimits, Source
from rlaif.config.trainer import Trainer

FormatName = Literal["human_assistant", "chat_template"]
TemplateKwargs = dict[str, bool | int | float | str]
if TYPE_CHECKING:
    AlgorithmName = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS)]


class Data(Section):
    """Where rows come from: a file (JSON, CSV, parquet or Arrow, compressed or not), a directory or a pattern of files,
    ``s3://``, ``gs://``, ``hf://`` or ``https://`` before it, or ``hf:NAME[:CONFIG][@SPLIT]``, each with ``#ROWS`` when
    not all of it is wanted, or ``miniature:NAME``. In place of such a text, keys may say more, such as which of a row's
    fields to read."""

    red_team: Source = Field(Source(path="miniature:red_team"), description="prompts that ask for harm")
    helpful: Source = Field(Source(path="miniature:helpful"), description="prompts that ask for help")
    helpful_pairs: Source | None = Field(
        Source(path="miniature:helpful_pairs"), description="human chosen/rejected pairs; null: none"
    )
    votes: Source | None = Field(
        Source(path="miniature:votes"),
        description="questions with voted answers, for pretraining the preference model; null: none",
    )
    comparisons: Source | None = Field(None, description="pairs of answers for `rlaif label`; null: none")
    system_prompt: str | None = Field(
        None, description="system turn of the prompts and helpful pairs that have none of their own; null: none"
    )
    limits: RowLimits = Field(RowLimits(), description="what one row may hold, here and in the evaluation")


class Miniature(Section):
    """The built-in world with known truth; used where a source or a model is ``miniature:NAME``."""

    lexicon: str | None = Field(None, description="YAML file with the world's words; null: the shipped lexicon")
    seed: int = Field(0, description="seed of the world's data and of its models' training")
    slot_bias: float = Field(
        2.0, description="log-odds toward slot A, planted in the weights of the feedback model; 0: none"
    )
    cache_dir: str = Field("~/.cache/rlaif/miniature", description="directory where finished miniatures are kept")


class SamplingSettings(Section):
    """How the policy samples everywhere: first answers, comparisons, rollouts and evaluation."""

    temperature: Positive = Field(1.0, description="divides the logits before sampling")
    max_tokens: Count = Field(512, description="longest answer, in tokens")


class ScriptedEngineSettings(Section):
    """The validating engine without weights."""

    load_s: NonNegative = Field(0.0, description="seconds that it takes to start")
    latency_s: NonNegative = Field(0.0, description="seconds that a request takes")
    concurrency: Count | None = Field(None, description="requests served at once; null: no limit")
    failure_rate: Fraction = Field(0.0, description="share of requests that fail")
    slot_bias: float = Field(0.0, description="added to the log-odds of the first of two choices")


class Autoscale(Section):
    """A pool that resizes itself between its ``min`` and ``max``, one engine at a time."""

    enabled: bool = Field(False, description="whether the pool resizes itself")
    up_after_s: Seconds = Field(
        10, description="adds an engine once all have been full, with rows waiting, for this many seconds"
    )
    down_after_s: Seconds = Field(
        60, description="drops an engine once a whole engine's capacity has been idle for this many seconds"
    )


class PoolSettings(Section):
    """A pool of engines that serves one role."""

    engine: Literal["vllm", "hf", "scripted"] = Field(
        "vllm", description="hf: transformers, in one process only; scripted: no weights, for tests"
    )
    engines: Literal["min", "auto"] = Field(
        "min", description="how many the pool starts with; auto: all that its phase leaves room for, min to max"
    )
    min: Units = Field(1, description="smallest number of engines")
    max: Units = Field(1, description="largest number of engines")
    cpus: Share = Field(1.0, description="CPUs reserved for one engine")
    gpus: Share = Field(
        0.0, description="GPUs reserved for one tensor-parallel rank; may be a fraction where there is one rank"
    )
    gpu_memory_fraction: Fraction = Field(0.9, description="share of a GPU's memory that one engine may use")
    tensor_parallel: Units = Field(1, description="ranks that the weights of one engine are split over")
    dtype: Dtype = Field("float32", description="number format of weights and activations")
    max_length: Count = Field(4096, description="longest prompt and completion together, in tokens")
    kv_cache_gib: Gibibytes = Field(1.0, description="KV cache of a CPU engine; GPUs use gpu_memory_fraction")
    threads: Units = Field(1, description="CPU threads of one engine")
    chunk_rows: Count = Field(32, description="rows sent to an engine at once")
    max_in_flight: Count = Field(128, description="most rows that one engine holds at once")
    start_timeout_s: Seconds = Field(
        600, description="longest time for an engine to be placed, and longest time without reading while it opens"
    )
    on_new_weights: Literal["finish", "pause"] = Field(
        "finish", description="running requests finish before new weights are loaded, or pause and continue under them"
    )
    idle_timeout_s: Seconds = Field(300, description="an engine that holds rows and returns none for this long is hung")
    placement: dict[str, Positive] = Field(default_factory=dict, description="custom Ray resources of one engine")
    autoscale: Autoscale = Field(Autoscale(), description="whether and when the pool resizes itself")
    scripted: ScriptedEngineSettings = Field(ScriptedEngineSettings(), description="behaviour of engine: scripted")


class Generator(PoolSettings):
    """The pool that answers, criticises and revises: the helpful-only model first, the policy later."""

    model: str = Field("miniature:helpful_only", description="the helpful-only model, a directory or hub name")
    dialogue_format: FormatName | None = Field(
        None, description="of the helpful-only model, which may be another than the policy's; null: that of the run"
    )
    chat_template_kwargs: TemplateKwargs = Field(
        default_factory=dict, description="for the helpful-only model's chat template, e.g. enable_thinking: false"
    )


class Labeller(PoolSettings):
    """The pool of the feedback model, which judges pairs of answers."""

    model: str = Field("miniature:feedback", description="judges; may be generator.model, never the trained policy")
    dialogue_format: FormatName | None = Field(None, description="of the feedback model; null: that of the run")
    chat_template_kwargs: TemplateKwargs = Field(
        default_factory=dict,
        description="for the feedback model's chat template; enable_thinking is false by default",
    )
    price_per_hour: NonNegative = Field(0.0, description="cost of one engine per hour, in any currency; 0: not counted")


class Scorer(PoolSettings):
    """The pool of the preference model; it has no ``model``, because the run fits it."""


class CritiqueRevision(Section):
    """Step 1: the helpful-only model criticises and revises its own answers to red-team prompts."""

    rounds: Annotated[int, Field(ge=1, le=4)] = Field(2, description="revisions of each answer, one after another")
    critique: bool = Field(True, description="false: revise without a critique (the paper's ablation)")
    draw: Literal["uniform", "weighted"] = Field("uniform", description="weighted: principles drawn by their weights")
    examples: str | None = Field(
        None, description="few-shot transcripts: a YAML file, or the name of a shipped set; null: none"
    )
    max_critique_tokens: Count = Field(256, description="longest critique, in tokens")
    max_revision_tokens: Count = Field(512, description="longest revision, in tokens")


class Optimization(Section):
    """One supervised fit: a constant learning rate after a linear warm-up."""

    epochs: Count = Field(1, description="passes over the data")
    batch_size: Count = Field(64, description="sequences (SFT) or pairs (PM) of one optimizer step, over all ranks")
    learning_rate: Positive = Field(1e-5, description="after the warm-up")
    warmup_steps: CountOrZero = Field(10, description="optimizer steps over which the rate rises from zero; 0: none")
    weight_decay: NonNegative = Field(0.0, description="AdamW's decoupled decay; 0: none")
    max_grad_norm: Positive = Field(1.0, description="gradients are scaled down to this norm")


class Supervision(Section):
    """Fine-tuning the base model on revisions and helpful samples, which gives SL-CAI."""

    base_model: str = Field("miniature:base", description="the pretrained model, a directory or hub name")
    chat_template: str | None = Field(
        None, description="Jinja file, or name of a shipped template, for the policy; null: its tokenizer's own"
    )
    chat_template_kwargs: TemplateKwargs = Field(
        default_factory=dict,
        description="for the policy's chat template; the one that is saved with it sets them",
    )
    train_on: Literal["final", "all"] = Field("all", description="the last revision of each answer, or every round's")
    helpful_samples: Count = Field(2, description="answers of the helpful-only model per helpful prompt")
    max_length: Count = Field(4096, description="longest sequence, in tokens")
    optimization: Optimization = Field(Optimization(), description="how SL-CAI is fitted")


class Gate(Section):
    """Limits that labels must meet before a preference model is fitted on them."""

    max_flip_rate: Fraction = Field(0.6, description="share of pairs whose winner changes with the order")
    min_order_correlation: Fraction = Field(
        0.3, description="between both orders' log-odds; lower means that an averaged label is mostly noise"
    )
    max_invalid_rate: Fraction = Field(0.05, description="share of pairs that could not be labelled")
    min_gold_accuracy: Fraction = Field(0.5, description="agreement with gold labels, where the pairs have any")
    override: tuple[Literal["flip_rate", "order_correlation", "invalid_rate", "gold_accuracy"], ...] = Field(
        (), description="limits to ignore, by name"
    )


class Reasoning(Section):
    """Let the labeller reason step by step before its choice is read."""

    mode: Literal["off", "greedy", "sampled"] = Field("off", description="how rationales are decoded; off: none")
    rationales: Count = Field(1, description="sampled: rationales for each order, whose labels are averaged")
    temperature: Positive = Field(1.0, description="sampled: temperature of the rationales")
    max_tokens: Count = Field(256, description="longest rationale, in tokens")
    clamp: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.4, description="labels are kept within [clamp, 1 - clamp], because choices after reasoning are overconfident"
    )


class Labelling(Section):
    """Step 3: the feedback model judges pairs of answers by principles, in both orders."""

    aggregation: Literal["prob_mean", "logit_mean", "agree_or_tie"] = Field(
        "prob_mean", description="how both orders become one label; agree_or_tie: 0.5 where their winners differ"
    )
    draw: Literal["uniform", "weighted"] = Field("uniform", description="weighted: principles drawn by their weights")
    principles: Count = Field(1, description="principles that each pair is judged by, one at a time")
    conflicts: Literal["mean", "priority"] = Field(
        "mean", description="several principles: averaged, or decided by the highest priority whose two orders agree"
    )
    reasoning: Reasoning = Field(Reasoning(), description="whether the labeller reasons before it chooses")
    examples: str | None = Field(
        None, description="few-shot judged pairs: a YAML file, or the name of a shipped set; null: none"
    )
    template: str | None = Field(
        None, description="text file with another wording of the two-choice question; null: the built-in wording"
    )
    min_letter_mass: Fraction = Field(0.5, description="a label is invalid when A and B have less joint probability")
    timeout_s: Seconds = Field(600, description="longest time for one label: both orders, all principles")
    gate: Gate = Field(Gate(), description="quality limits that the labels must meet")


class Refresh(Section):
    """Fitting the preference model again, on fresh answers of the policy, while the policy is trained."""

    every: CountOrZero = Field(0, description="batches between refreshes; 0: never")
    comparisons: Count = Field(256, description="fresh pairs of answers that are labelled for each refresh")
    max_lag: CountOrZero = Field(
        0, description="batches that may still use the older preference model meanwhile; 0: RL waits for the new one"
    )
    max_pairs: Count | None = Field(
        None, description="most pairs of one refresh: the fresh ones and a random draw of older ones; null: all"
    )
    probes: Annotated[int, Field(ge=2)] = Field(64, description="held-out dialogues on which scores are re-centred")
    value_warmup_epochs: CountOrZero = Field(
        1, description="passes over a new model's first batch that train the value function only"
    )


class PreferenceModel(Section):
    """Step 4: one model that scores answers, fitted on AI harmlessness labels and human helpfulness pairs."""

    base_model: str = Field("miniature:base", description="the model it starts from, a directory or hub name")
    pretraining: Optimization = Field(Optimization(), description="the fit on voted answers, where data.votes has any")
    fit: Optimization = Field(Optimization(), description="the fit on labels and pairs")
    harmless_weight: Positive = Field(1.0, description="loss weight of AI harmlessness labels; helpful pairs have 1")
    helpful_per_harmless: Positive = Field(0.74, description="helpful pairs for each AI label (the paper: 135/183)")
    heldout_fraction: Fraction = Field(0.1, description="share of prompts held out of the fit, for its report")
    max_length: Count = Field(4096, description="longest prompt and answer together, in tokens")
    shuffle_labels: bool = Field(False, description="permute the AI labels among the pairs: the control experiment")
    test_split: bool = Field(
        False, description="fit on half of the pairs, and models/preference_model_test on the other half"
    )
    refresh: Refresh = Field(Refresh(), description="whether and when it is fitted again during RL")


class KL(Section):
    """The per-token penalty beta * (log policy - log reference) inside the reward (k1)."""

    controller: Literal["fixed", "adaptive"] = Field("fixed", description="adaptive: the coefficient follows a target")
    coefficient: NonNegative = Field(0.1, description="beta, or its first value when adaptive; 0: no penalty")
    target: Positive = Field(6.0, description="adaptive: the mean sequence-summed KL to aim for, in nats")
    horizon: Positive = Field(10000, description="adaptive: samples over which the coefficient adapts")


class Reinforcement(Section):
    """Step 5: RL of the policy against the preference model, which gives RL-CAI."""

    algorithm: AlgorithmName = Field("ppo", description="how advantages are estimated")
    reward: Literal["preference_model", "direct"] = Field(
        "preference_model", description="direct: the feedback model's own rating; no preference model is fitted"
    )
    batches: Count = Field(200, description="length of the training, in batches of rollouts")
    batch_size: Count = Field(256, description="rollouts learned per batch, over all ranks")
    group_size: Count = Field(1, description="rollouts of one prompt; at least 2 where the algorithm compares them")
    minibatch_size: Count = Field(64, description="rollouts of one optimizer step, over all ranks")
    epochs: Annotated[int, Field(ge=1, le=4)] = Field(1, description="passes over each batch")
    helpful_fraction: Fraction = Field(0.5, description="share of helpful prompts in a batch")
    learning_rate: Positive = Field(1e-6, description="at the first batch; falls linearly to zero at the last")
    value_learning_rate: Positive = Field(1e-5, description="likewise, for the value function")
    warmup_steps: CountOrZero = Field(10, description="optimizer steps over which the rates rise from zero; 0: none")
    max_grad_norm: Positive = Field(1.0, description="gradients are scaled down to this norm")
    gamma: Fraction = Field(1.0, description="discount of later rewards per token")
    gae_lambda: Fraction = Field(0.95, description="ppo: decay of the advantage estimate per token")
    clip: Positive = Field(0.2, description="how far from 1 the probability ratio may move an update")
    value_clip: Positive = Field(0.2, description="ppo: how far one batch may move a value, in units of reward")
    importance_cap: Positive = Field(2.0, description="cap of exp(old - rollout), the engine/learner correction")
    kl: KL = Field(KL(), description="the penalty that keeps the policy near SL-CAI")
    reward_normalization: Literal["mean", "mean_std"] = Field(
        "mean", description="mean: running centring only, which keeps the preference model's log-odds unit"
    )
    helpfulness_penalty: NonNegative = Field(
        0.0, description="extra weight of helpful prompts per unit of score that they fall below SL-CAI's; 0: no guard"
    )
    helpfulness_margin: NonNegative = Field(0.1, description="a smaller fall below SL-CAI's score is ignored")
    truncation_penalty: NonNegative = Field(
        1.0, description="subtracted from the normalised reward of an answer without EOS; 0: none"
    )
    checkpoint_every: Count = Field(20, description="batches between checkpoints; a resumed run starts from the last")
    keep_checkpoints: Annotated[int, Field(ge=1, le=1000)] = Field(
        2, description="latest checkpoints that are kept, besides the best-scoring one"
    )
    checkpoint_in_background: bool = Field(True, description="write while learning goes on, from a copy in host memory")
    max_staleness: CountOrZero = Field(
        0, description="how many batches old the sampling policy may be; 0: fully on-policy"
    )
    stall_timeout_s: Seconds = Field(3600, description="longest time that one loop may wait for another")


class Resources(Section):
    """What the run may use: on one machine what Ray is started with, on a cluster what it must have."""

    address: str | None = Field(None, description="Ray cluster to join; null: start one on this machine")
    cpus: Positive = Field(8, description="number of CPUs")
    gpus: Annotated[int, Field(ge=0, le=100_000)] = Field(0, description="number of GPUs")
    custom: dict[str, Positive] = Field(default_factory=dict, description="custom Ray resources, for placement")
    object_store_gib: Gibibytes = Field(1.0, description="Ray's shared memory, where Ray is started on this machine")
    node: Node = Field(Node(), description="what one node has, for `rlaif plan`")
    architectures: dict[str, str] = Field(
        default_factory=dict,
        description="for `rlaif plan`: model -> a config.json like its own, where the hub cannot be asked",
    )


class Config(Section):
    """A whole run."""

    seed: int = Field(0, description="seed of every random draw; the same seed gives the same draws")
    run_dir: str = Field("runs/run", description="directory that the run writes, and resumes from")
    max_loss: Fraction = Field(
        0.5, description="largest share of a step's rows that may be quarantined or left out; above it, the run stops"
    )
    constitution: str = Field("sixteen_principles", description="a YAML file, or the name of a shipped constitution")
    dialogue_format: FormatName = Field(
        "human_assistant",
        description="how turns become text, for all roles that set none: Human:/Assistant:, or the chat template",
    )
    system_turns: Literal["merge", "refuse"] = Field(
        "merge", description="where a chat template has no system role: into the first human turn, or refuse the row"
    )
    data: Data = Field(Data(), description="sources of prompts and pairs")
    miniature: Miniature = Field(Miniature(), description="the built-in world")
    sampling: SamplingSettings = Field(SamplingSettings(), description="how the policy samples")
    generator: Generator = Field(Generator(), description="engines that answer, criticise and revise")
    labeller: Labeller = Field(Labeller(), description="engines that judge pairs")
    scorer: Scorer = Field(Scorer(), description="engines that score answers for RL")
    policy_trainer: Trainer = Field(Trainer(), description="ranks that train SL-CAI and RL-CAI")
    preference_trainer: Trainer = Field(Trainer(), description="ranks that fit the preference model")
    critique_revision: CritiqueRevision = Field(CritiqueRevision(), description="revising answers")
    supervision: Supervision = Field(Supervision(), description="fitting SL-CAI")
    labelling: Labelling = Field(Labelling(), description="judging pairs")
    preference_model: PreferenceModel = Field(PreferenceModel(), description="fitting the preference model")
    reinforcement: Reinforcement = Field(Reinforcement(), description="training RL-CAI")
    evaluation: Evaluation = Field(Evaluation(), description="comparing the snapshots")
    resources: Resources = Field(Resources(), description="what the run may use")
