"""Values that are valid one by one but contradict each other. Pure: reads no file and no data.

Every mistake is one line, ``path=value: rule; fix``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlaif.config.algorithms import ALGORITHMS
from rlaif.config.schema import Config, PoolSettings
from rlaif.config.section import Section
from rlaif.config.source import Source
from rlaif.config.trainer import Trainer
from rlaif.errors import format_value


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One line for the user, and the keys that it is about."""

    keys: tuple[str, ...]
    line: str


def flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every field that is not itself a section; a source is a value."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section) and not isinstance(value, Source):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def pools_of(config: Config) -> dict[str, PoolSettings]:
    """The roles that pools of engines play, which are the ones that can be scaled."""
    return {role: settings for role, settings in config if isinstance(settings, PoolSettings)}


def trainers_of(config: Config) -> dict[str, Trainer]:
    """The roles that trainers play; each has as many ranks as it began with."""
    return {role: settings for role, settings in config if isinstance(settings, Trainer)}


def contradictions(config: Config) -> Iterator[Mistake]:
    """Values that are valid one by one but contradict each other."""
    for role, pool in pools_of(config).items():
        yield from _pool_contradictions(role, pool)
        yield from _share_contradictions(role, pool.gpus, "tensor_parallel", pool.tensor_parallel)
    for role, trainer in trainers_of(config).items():
        name, ranks = ("ranks", trainer.ranks) if trainer.ranks > 1 else ("fit_ranks", trainer.fit_ranks or 1)
        yield from _share_contradictions(role, trainer.gpus, name, ranks)
    reasoning = config.labelling.reasoning
    if reasoning.rationales > 1 and reasoning.mode != "sampled":
        keys = ("labelling.reasoning.rationales", "labelling.reasoning.mode")
        yield _against(keys, config, "more than one rationale must be sampled", "set labelling.reasoning.mode=sampled")
    yield from _format_contradictions(config)
    if config.labelling.conflicts == "priority" and config.labelling.principles == 1:
        keys = ("labelling.conflicts", "labelling.principles")
        yield _against(keys, config, "one principle conflicts with none", "raise labelling.principles")
    yield from _suite_contradictions(config)
    yield from _length_contradictions(config)
    yield from _reinforcement_contradictions(config)


def _pool_contradictions(role: str, pool: PoolSettings) -> Iterator[Mistake]:
    bounds = (f"{role}.min", f"{role}.max")
    if pool.min > pool.max:
        line = f"{role}.min={pool.min}: must be at most {role}.max={pool.max}; lower it or raise {role}.max"
        yield Mistake(keys=bounds, line=line)
    if pool.engines == "auto" and pool.min == pool.max:
        line = f"{role}.engines=auto: with {role}.min={pool.min} and max={pool.max}: has no room to grow; raise max"
        yield Mistake(keys=(f"{role}.engines", *bounds), line=line)
    if pool.autoscale.enabled and pool.min == pool.max:
        enabled = f"{role}.autoscale.enabled"
        line = f"{enabled}=true: with {role}.min={pool.min} and max={pool.max}: has no room to grow; raise max"
        yield Mistake(keys=(enabled, *bounds), line=line)
    if pool.chunk_rows > pool.max_in_flight:
        name, limit = f"{role}.chunk_rows", f"{role}.max_in_flight"
        line = f"{name}={pool.chunk_rows}: must be at most {limit}={pool.max_in_flight}; raise {limit}"
        yield Mistake(keys=(name, limit), line=line)


def _share_contradictions(role: str, gpus: float, name: str, ranks: int | str) -> Iterator[Mistake]:
    """Ranks that talk to each other need a GPU each: NCCL refuses two on one, where Ray may put two shares. Ray itself
    knows no GPUs and a half."""
    key, count = f"{role}.gpus", f"{role}.{name}"
    if gpus != int(gpus) and gpus > 1:
        line = f"{key}={gpus:g}: more than one GPU must be a whole number; use {int(gpus)} or {int(gpus) + 1}"
        yield Mistake(keys=(key,), line=line)
    elif 0 < gpus < 1 and ranks != 1:
        rule = "ranks that work together cannot share a GPU (NCCL refuses two on one)"
        yield Mistake(keys=(key, count), line=f"{key}={gpus:g}: with {count}={ranks}: {rule}; set {key}=1 or {count}=1")


def _format_contradictions(config: Config) -> Iterator[Mistake]:
    """What is said of a chat template where none is used."""
    flat = flatten(config)
    for section in ("supervision", "generator", "labeller"):
        own = f"{section}.dialogue_format"
        format = own if flat.get(own) else "dialogue_format"
        for key in (f"{section}.chat_template", f"{section}.chat_template_kwargs"):
            if flat.get(key) and flat[format] == "human_assistant":
                removal = f"{key}=null" if key.endswith("template") else f"remove {key}"
                fix = f"set {format}=chat_template, or {removal}"
                yield _against((key, format), config, "no chat template is used", fix)


def _suite_contradictions(config: Config) -> Iterator[Mistake]:
    for name, source in config.evaluation.suites:
        for field in source.fields if source is not None else ():
            key = f"evaluation.suites.{name}.{field}"
            line = f"{key}: a suite is read in its own columns; give the file with those, and leave out {field}"
            yield Mistake(keys=(key,), line=line)


def _length_contradictions(config: Config) -> Iterator[Mistake]:
    """A context must have room for more than the completion, a forward pass for at least one sequence."""
    for key in (
        "sampling.max_tokens",
        "critique_revision.max_critique_tokens",
        "critique_revision.max_revision_tokens",
    ):
        if flatten(config)[key] >= config.generator.max_length:
            yield _against((key, "generator.max_length"), config, "leaves no room for a prompt", "lower it")
    for key, trainer in (
        ("supervision.max_length", "policy_trainer"),
        ("preference_model.max_length", "preference_trainer"),
    ):
        limit = f"{trainer}.micro_batch_tokens"
        if flatten(config)[key] > flatten(config)[limit]:
            yield _against((key, limit), config, "one sequence must fit in a forward pass", f"raise {limit}")


def _reinforcement_contradictions(config: Config) -> Iterator[Mistake]:
    r = config.reinforcement
    batch, group, minibatch = (f"reinforcement.{n}" for n in ("batch_size", "group_size", "minibatch_size"))
    min_group = ALGORITHMS[r.algorithm].min_group
    if r.group_size < min_group:
        rule = f"compares answers to one prompt, so groups hold at least {min_group}"
        yield _against((group, "reinforcement.algorithm"), config, rule, f"raise {group}")
    if r.reward == "direct" and config.preference_model.refresh.every:
        keys = ("preference_model.refresh.every", "reinforcement.reward")
        yield _against(keys, config, "there is no preference model to refresh", "set preference_model.refresh.every=0")
    if r.batch_size % r.group_size:
        yield _against((batch, group), config, "must be a multiple of the group", "change either")
    if r.batch_size % r.minibatch_size:
        yield _against((batch, minibatch), config, "must be a multiple of the minibatch", "change either")
    if r.helpfulness_penalty > 0 and r.helpful_fraction == 0:
        keys = ("reinforcement.helpfulness_penalty", "reinforcement.helpful_fraction")
        yield _against(keys, config, "helpfulness cannot be measured without helpful prompts", "raise helpful_fraction")


def _against(keys: tuple[str, str], config: Config, rule: str, fix: str) -> Mistake:
    """One key's value against another's."""
    flat = flatten(config)
    line = f"{keys[0]}={format_value(flat[keys[0]])}: with {keys[1]}={format_value(flat[keys[1]])}: {rule}; {fix}"
    return Mistake(keys=keys, line=line)
