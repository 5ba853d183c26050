"""Values that are right alone, and wrong beside another value, on this disk, or on a cluster.

Every mistake is one line, ``path=value: rule; fix``. Nothing here reads data or starts anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.config import Config, EnginePool, Section
from rlaif.constitution import Constitution
from rlaif.errors import ConfigError
from rlaif.examples import LabelExample, RevisionExample, read_examples
from rlaif.miniature.lexicon import load_lexicon
from rlaif.questions import read_template

DATA_SUFFIXES = (".jsonl", ".csv", ".parquet")
MINIATURE_DATA = ("red_team", "helpful", "helpful_pairs", "votes", "eval_red_team", "eval_helpful")
MINIATURE_MODELS = ("helpful_only", "feedback", "base")
SOURCE_KEYS = (
    "data.red_team",
    "data.helpful",
    "data.helpful_pairs",
    "data.votes",
    "evaluation.red_team",
    "evaluation.helpful",
)
MODEL_KEYS = ("generator.model", "labeller.model", "supervision.base_model", "preference_model.base_model")


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One line for the user, and the keys that it is about."""

    keys: tuple[str, ...]
    line: str


def flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every field that is not itself a section."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_for_cluster(config: Config) -> list[str]:
    """What the in-process runner allows and a cluster does not; one line each, empty when all is well."""
    return [
        f"{role}.engine=hf: the transformers engine runs in one process only; use vllm, or scripted"
        for role, pool in _pools(config)
        if pool.engine == "hf"
    ]


def check_shared(config: Config) -> list[str]:
    """Paths that mean nothing to the nodes of a cluster, which see neither this machine's directories nor each other's
    homes; one line each, empty when all is well. Whether an absolute path exists is seen there."""
    flat = flatten(config)
    named = {key: flat[key] for key in (*SOURCE_KEYS, *MODEL_KEYS) if flat[key] is not None}
    own = {key: value for key, value in named.items() if not value.startswith(("hf:", "miniature:"))}
    paths = {key: value for key, value in own.items() if key not in MODEL_KEYS or not _is_hub_name(value)}
    paths["run_dir"] = config.run_dir
    if any(value.startswith("miniature:") for value in named.values()):
        paths["miniature.cache_dir"] = config.miniature.cache_dir
    return [
        f"{key}={value}: the nodes of a cluster do not see it; give an absolute path on storage that they share"
        for key, value in paths.items()
        if not Path(value).is_absolute()
    ]


def _is_hub_name(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not Path(model).exists()


def check_files(config: Config) -> None:
    """Read the small files that a configuration names: a lexicon, examples and a template. Raises ConfigError."""
    load_lexicon(config.miniature.lexicon)
    read_template(config.labelling.template)
    read_examples(LabelExample, config.labelling.examples, field="labelling.examples")
    read_examples(RevisionExample, config.critique_revision.examples, field="critique_revision.examples")


def check_constitution(constitution: Constitution, config: Config, *, revises: bool) -> None:
    """Raises ConfigError when the constitution has too few comparison principles for the labels that are asked for, or
    no principle to revise by where there is something to revise."""
    if revises and not constitution.for_revision:
        raise ConfigError(
            f"constitution={config.constitution}: has no principle with critique_request and revision_request; "
            "the first step revises by them, so add one"
        )
    have, wanted = len(constitution.for_comparison), config.labelling.principles
    if have < wanted:
        raise ConfigError(
            f"constitution={config.constitution}: has {have} principles with a comparison, labels need "
            f"labelling.principles={wanted}; add comparisons, or lower labelling.principles"
        )


def check_sources(config: Config, sources: Sequence[str] = SOURCE_KEYS, models: Sequence[str] = MODEL_KEYS) -> None:
    """See that named files and miniatures exist, without reading them; ``hf:`` names and hub models pass.

    Raises ConfigError with one line for each key whose source is missing.
    """
    flat = flatten(config)
    lines = [_source_problem(key, flat[key]) for key in sources if flat[key] is not None]
    lines += [_model_problem(key, flat[key]) for key in models]
    lexicon = flat["miniature.lexicon"]
    if lexicon is not None and not Path(lexicon).is_file():
        lines.append(f"miniature.lexicon={lexicon}: no such file; give a YAML lexicon, or leave it out")
    problems = [line for line in lines if line]
    if problems:
        raise ConfigError("\n".join(problems))


# --------------------------------------------------------------------------------------------- contradictions
def _pools(config: Config) -> tuple[tuple[str, EnginePool], ...]:
    return (("generator", config.generator), ("labeller", config.labeller), ("scorer", config.scorer))


def contradictions(config: Config) -> Iterator[Mistake]:
    """Values that are right alone and wrong together."""
    for role, pool in _pools(config):
        yield from _pool_contradictions(role, pool)
    if config.labeller.model == config.generator.model:
        yield _against(
            ("labeller.model", "generator.model"),
            config,
            "the labeller must not share the policy's weights",
            "name another model",
        )
    reasoning = config.labelling.reasoning
    if reasoning.rationales > 1 and reasoning.mode != "sampled":
        keys = ("labelling.reasoning.rationales", "labelling.reasoning.mode")
        yield _against(keys, config, "more than one rationale must be sampled", "set labelling.reasoning.mode=sampled")
    yield from _length_contradictions(config)
    yield from _reinforcement_contradictions(config)


def _pool_contradictions(role: str, pool: EnginePool) -> Iterator[Mistake]:
    bounds = (f"{role}.min", f"{role}.max")
    if pool.min > pool.max:
        line = f"{role}.min={pool.min}: must be at most {role}.max={pool.max}; lower it or raise {role}.max"
        yield Mistake(keys=bounds, line=line)
    if pool.autoscale.enabled and pool.min == pool.max:
        line = f"{role}.autoscale.enabled=true: with {role}.min={pool.min} and max={pool.max}: nowhere to go; raise max"
        yield Mistake(keys=(f"{role}.autoscale.enabled", *bounds), line=line)
    if pool.chunk_rows > pool.max_in_flight:
        name, limit = f"{role}.chunk_rows", f"{role}.max_in_flight"
        line = f"{name}={pool.chunk_rows}: must be at most {limit}={pool.max_in_flight}; raise {limit}"
        yield Mistake(keys=(name, limit), line=line)


def _length_contradictions(config: Config) -> Iterator[Mistake]:
    """A context must hold more than the completion; a forward pass must hold at least one sequence."""
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
    if r.algorithm in ("rloo", "grpo") and r.group_size < 2:
        rule = "compares answers to one prompt, so groups hold at least 2"
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
        yield _against(
            keys, config, "without helpful prompts nothing tells how helpful it is", "raise helpful_fraction"
        )


def _against(keys: tuple[str, str], config: Config, rule: str, fix: str) -> Mistake:
    """One key's value against another's."""
    flat = flatten(config)
    line = f"{keys[0]}={shown(flat[keys[0]])}: with {keys[1]}={shown(flat[keys[1]])}: {rule}; {fix}"
    return Mistake(keys=keys, line=line)


# ---------------------------------------------------------------------------------------------------- sources
def _source_problem(key: str, source: str) -> str | None:
    if source.startswith("hf:"):
        return None
    if source.startswith("miniature:"):
        return _miniature_problem(key, source, MINIATURE_DATA)
    path = Path(source)
    if path.is_dir():
        found = any(p.suffix in DATA_SUFFIXES for p in path.rglob("*"))
        return None if found else f"{key}={source}: no {', '.join(DATA_SUFFIXES)} files in it; name another directory"
    if not path.is_file():
        return f"{key}={source}: no such file; paths are relative to the working directory ({Path.cwd()})"
    if path.suffix not in DATA_SUFFIXES:
        return f"{key}={source}: unknown kind of file; use one of {', '.join(DATA_SUFFIXES)}"
    return None


def _model_problem(key: str, model: str) -> str | None:
    if model.startswith("miniature:"):
        return _miniature_problem(key, model, MINIATURE_MODELS)
    directory = Path(model).expanduser()
    if (directory / "config.json").is_file():
        return None
    if (directory / "adapter_config.json").is_file():
        return f"{key}={model}: a LoRA adapter without its model; merge it into its base and name what comes out"
    if model.startswith(("/", "./", "../", "~")):
        return f"{key}={model}: no model there (config.json is missing); name a Hugging Face model directory"
    return None


def _miniature_problem(key: str, source: str, known: tuple[str, ...]) -> str | None:
    name = source.removeprefix("miniature:")
    return None if name in known else f"{key}={source}: no such miniature; use one of {', '.join(known)}"
