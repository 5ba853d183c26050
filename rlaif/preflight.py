"""What can be wrong around a configuration: files that are missing, paths that a cluster does not see.

Every mistake is one line, ``path=value: rule; fix``. Nothing here reads data or starts anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif.config.contradictions import flatten, pools_of
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.errors import ConfigError
from rlaif.miniature.lexicon import load_lexicon
from rlaif.prompting.examples import LabelExample, RevisionExample, read_examples
from rlaif.prompting.questions import read_template

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


def check_for_cluster(config: Config) -> list[str]:
    """What the in-process runner allows and a cluster does not; one line each, empty when all is well."""
    return [
        f"{role}.engine=hf: the transformers engine runs in one process only; use vllm, or scripted"
        for role, pool in pools_of(config)
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
