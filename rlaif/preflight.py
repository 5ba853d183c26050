"""Every check before anything starts: the same ones, in one order, for run, plan, stage, label and submit.

Nothing is made, locked, fetched or started here, and no data is read. All mistakes are shown at once, one line each:
``path=value: rule; fix``. Three things are checked once they can be known: models that must be fetched or made first
(by ``check_models``), files on another cluster (by the job, there), and the nodes of a cluster (by ``check_nodes`` and
``check_every_node``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec

from rlaif.config.contradictions import flatten, pools_of
from rlaif.config.files import FILE_KEYS, expand_home
from rlaif.config.keys import MODEL_KEYS, POLICY_KEY, SCORED_KEY, SOURCE_KEYS
from rlaif.config.schema import Config
from rlaif.config.source import Source, is_data_set
from rlaif.constitution.principles import Constitution, load_constitution
from rlaif.data.files.sources import files_of, named, passed_over
from rlaif.engines import ENGINES
from rlaif.engines.models import check_model_dir, is_hub_name, read_model, read_vocabulary_size
from rlaif.engines.scripted import byte_tokenizer
from rlaif.errors import ConfigError, ModelError, UserError
from rlaif.miniature.lexicon import load_lexicon
from rlaif.miniature.make import FILES, MODELS, is_cached
from rlaif.places.paths import is_file
from rlaif.places.urls import check_url, is_url
from rlaif.prompting.chat_templates import ChatFormat
from rlaif.prompting.examples import LabelExample, RevisionExample, read_examples
from rlaif.prompting.formats import FormatRole, format_of, read_chat_template
from rlaif.prompting.probes import template_mistake
from rlaif.prompting.questions import read_template
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.storage.run_dir import check_stored_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Where the work is done: in this process, on a Ray that it joins or starts, or by a job that is sent to a cluster and
#: does not see this machine's files.
Runner = Literal["in_process", "ray", "job"]

MINIATURE = "miniature:"
#: The models whose dialogues are rendered, each in the format of its role.
ROLE_KEYS: Mapping[FormatRole, str] = {
    "generator": "generator.model",
    "labeller": "labeller.model",
    "policy": POLICY_KEY,
}
#: Where a run directory holds the policies that the run trained; their checkpoints are in ``checkpoints``.
POLICIES = (("models", "sl_cai"), ("models", "rl_cai"))

_logger = logging.getLogger(__name__)
_P = ParamSpec("_P")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What some work needs of a configuration."""

    models: tuple[str, ...] = MODEL_KEYS  #: configuration keys
    sources: tuple[str, ...] = SOURCE_KEYS  #: configuration keys
    revises: bool = True
    serves_all: bool = True  #: opens an engine for each of the models of pools; a single stage may not


def preflight(config: Config, needs: Needs, runner: Runner) -> Constitution:
    """Check everything that can be known now; returns the constitution.

    Raises ConfigError with every mistake, RunDirError for a run directory of another configuration.
    """
    if mistakes := list(_url_mistakes(config)):  # alone: other messages would repeat what a URL holds
        raise ConfigError("\n".join(mistakes))
    mistakes = [
        *_file_mistakes(config),
        *_constitution_mistakes(config, needs),
        *_source_mistakes(config, needs, runner),
    ]
    if runner != "job":
        mistakes += [*_judge_mistakes(config, needs), *_model_mistakes(config, needs, {})]
    mistakes += _template_mistakes(config, needs, {})
    if runner != "in_process":
        mistakes += _engine_mistakes(config)
    if runner == "job":
        mistakes += _path_mistakes(config)
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    constitution = load_constitution(config.constitution)
    if runner != "job":
        check_stored_config(Path(config.run_dir), config)
        _say_what_is_passed_over(config, needs)
    return constitution


def check_models(config: Config, needs: Needs, paths: Mapping[str, Path]) -> None:
    """Check the models again, now that ``paths`` has those that were fetched or made. Raises ModelError."""
    if mistakes := [*_model_mistakes(config, needs, paths), *_template_mistakes(config, needs, paths)]:
        raise ModelError("\n".join(mistakes))


def _mistakes_of(check: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> list[str]:
    """The lines that ``check`` raises as the user's mistakes; none when all is well."""
    try:
        check(*args, **kwargs)
    except UserError as error:
        return str(error).splitlines()
    return []


# ------------------------------------------------------------------------------------------------------------ URLs
def _url_mistakes(config: Config) -> Iterator[str]:
    """URLs that cannot be used, or that stand where a directory of this machine must."""
    for key, given in flatten(config).items():
        value = given.path if isinstance(given, Source) else given
        if key == "resources.address" or not isinstance(value, str) or not is_url(value):
            continue
        if unusable := _mistakes_of(check_url, value):
            yield f"{key}={unusable[0]}"
        elif key == "run_dir":
            way = f"choose a directory, and copy the results with `rlaif export RUN_DIR {value}`"
            yield f"{key}={value}: a run directory cannot be in object storage; {way}"
        elif key in MODEL_KEYS:
            yield f"{key}={value}: models are not read from URLs; copy it into a directory, or give a hub name"
        elif key in FILE_KEYS:
            yield f"{key}={value}: this file is not read from a URL; copy it to this machine"


# ------------------------------------------------------------------------------------- small files, constitution
def _file_mistakes(config: Config) -> Iterator[str]:
    """Small files that cannot be used: lexicon, templates, examples."""
    revision, labelling = config.critique_revision, config.labelling
    yield from _mistakes_of(load_lexicon, config.miniature.lexicon)
    yield from _mistakes_of(read_template, labelling.template)
    yield from _mistakes_of(read_chat_template, config.supervision.chat_template)
    yield from _mistakes_of(read_examples, LabelExample, labelling.examples, field="labelling.examples")
    yield from _mistakes_of(read_examples, RevisionExample, revision.examples, field="critique_revision.examples")


def _constitution_mistakes(config: Config, needs: Needs) -> Iterator[str]:
    """A constitution that cannot be read, or lacks principles that the work needs."""
    if unreadable := _mistakes_of(load_constitution, config.constitution):
        yield from unreadable
        return
    constitution = load_constitution(config.constitution)
    if needs.revises and not constitution.for_revision:
        yield (
            f"constitution={config.constitution}: has no principle with critique_request and revision_request; "
            "the first step revises by them, so add one"
        )
    num, num_needed = len(constitution.for_comparison), config.labelling.principles
    if num < num_needed:
        yield (
            f"constitution={config.constitution}: has {num} principles with a comparison, labels need "
            f"labelling.principles={num_needed}; add comparisons, or lower labelling.principles"
        )
    elif any(value.startswith(MINIATURE) for value in _values(config, (*needs.models, *needs.sources)).values()):
        yield from _mistakes_of(is_cached, config.miniature, constitution)  # whether a miniature could be made from it


def _values(config: Config, keys: Iterable[str]) -> dict[str, str]:
    """The values of those ``keys`` that have one; of a source, its place."""
    flat = flatten(config)
    return {key: str(flat[key]) for key in keys if flat[key] is not None}


# ----------------------------------------------------------------------------------------------- sources, models
def _source_mistakes(config: Config, needs: Needs, runner: Runner) -> Iterator[str]:
    """Sources that do not exist; none is read. ``hf:`` names pass, and a job's sources are checked where it runs."""
    for key, source in _values(config, needs.sources).items():
        if source.startswith(MINIATURE):
            yield from _name_mistakes(key, source, FILES)
        elif runner != "job" and (unusable := _mistakes_of(files_of, source)):
            is_missing = "no such file" in unusable[0] and not is_url(source)
            hint = f"; paths are relative to the working directory ({Path.cwd()})" if is_missing else ""
            yield f"{key}={unusable[0]}{hint}"
    if runner == "job":
        for key, model in _values(config, needs.models).items():
            yield from _name_mistakes(key, model, MODELS)


def _say_what_is_passed_over(config: Config, needs: Needs) -> None:
    """One line for each directory that holds more than is read of it."""
    for key, source in _values(config, needs.sources).items():
        if not source.startswith(MINIATURE) and (others := passed_over(source)):
            _logger.warning("%s=%s: passed over %s", key, source, named(others))


def _model_mistakes(config: Config, needs: Needs, paths: Mapping[str, Path]) -> Iterator[str]:
    """Models that cannot play their role. A hub name or a miniature is looked at once ``paths`` says where it is."""
    for key, model in _values(config, needs.models).items():
        if model in paths:
            yield from _mistakes_of_model(config, key, str(paths[model]), needs)
        elif model.startswith(MINIATURE):
            yield from _name_mistakes(key, model, MODELS)
        elif not is_hub_name(model):
            directory = str(expand_home(model)) if model.startswith("~") else model
            yield from _mistakes_of_model(config, key, directory, needs)
    yield from _vocabulary_mistakes(config, needs, paths)
    yield from _tokenizer_mistakes(config, needs, paths)


def _mistakes_of_model(config: Config, key: str, path: str, needs: Needs) -> list[str]:
    pool = pools_of(config).get(key.removesuffix(".model"))
    if pool is None or pool.engine == "scripted" or not needs.serves_all:
        return _mistakes_of(check_model_dir, path, field=key)
    return _mistakes_of(read_model, path, field=key, max_length=pool.max_length, pooling=False)


def _judge_mistakes(config: Config, needs: Needs) -> Iterator[str]:
    """A policy that this run or another trains may not judge the policy that this work trains."""
    model = config.labeller.model
    if POLICY_KEY in needs.models and not is_hub_name(model) and _is_trained_policy(model, config.run_dir):
        yield (
            f"labeller.model={model}: a policy that a run trains (SL-CAI or later), which must not judge itself; "
            f"name a pretrained or a helpful model, which may be generator.model={config.generator.model}"
        )


def _is_trained_policy(model: str, run_dir: str) -> bool:
    """Whether a model's directory is, or will be, one that the run in ``run_dir`` writes, or that another run wrote."""
    path, own = expand_home(model).resolve(), Path(run_dir).resolve()
    runs = [run for run in path.parents if run == own or (run / "manifest.json").is_file()]
    inside = (path.relative_to(run).parts[:2] for run in runs)
    return any(parts in POLICIES or parts[0] == "checkpoints" for parts in inside)


def _vocabulary_mistakes(config: Config, needs: Needs, paths: Mapping[str, Path]) -> Iterator[str]:
    """Tokenizers with tokens that their model has no embeddings for, such as that of a larger sibling. Tokens that were
    added to it are passed over: many a model has such a padding token, which it never reads."""
    for key, model in _values(config, needs.models).items():
        directory = paths.get(model, expand_home(model))
        if not all(is_file(directory / name) for name in ("tokenizer.json", "config.json")):
            continue
        vocabulary = read_vocabulary_size(directory)
        if vocabulary is None or _mistakes_of(load_tokenizer, directory):  # said already
            continue
        tokenizer = load_tokenizer(directory)
        ids = (id for id in tokenizer.get_vocab().values() if id not in tokenizer.added_tokens_decoder)
        last = max(ids, default=-1)
        if last >= vocabulary:
            yield (
                f"{key}={model}: its tokenizer has ids up to {last}, its embeddings only {vocabulary}; "
                "put the tokenizer of this model into its directory, which seems to have that of another"
            )


def _tokenizer_mistakes(config: Config, needs: Needs, paths: Mapping[str, Path]) -> Iterator[str]:
    """The preference model scores the policy's token ids, so they must share a tokenizer."""
    if not {SCORED_KEY, POLICY_KEY} <= set(needs.models):
        return
    models = _values(config, (SCORED_KEY, POLICY_KEY))
    scored, policy = (paths.get(model, expand_home(model)) for model in models.values())
    if scored == policy or not all(is_file(path / "tokenizer.json") for path in (scored, policy)):
        return
    try:
        is_shared = load_tokenizer(scored).get_vocab() == load_tokenizer(policy).get_vocab()
    except ModelError as error:
        yield str(error)
        return
    if not is_shared:
        yield (
            f"{SCORED_KEY}={models[SCORED_KEY]}: its tokenizer is not that of {POLICY_KEY}={models[POLICY_KEY]}; "
            "the preference model scores the policy's token ids, so they must share one"
        )


def _template_mistakes(config: Config, needs: Needs, paths: Mapping[str, Path]) -> Iterator[str]:
    """Chat templates that are missing, or do not render what the run will ask of them.

    A template in a file is probed even where no model can be seen, such as before a job is sent.
    """
    if _mistakes_of(read_chat_template, config.supervision.chat_template):  # said already
        return
    for role, key in ROLE_KEYS.items():
        format = format_of(config, role)
        if key not in needs.models or not isinstance(format, ChatFormat):
            continue
        tokenizer = _tokenizer_of(flatten(config)[key], format, paths)
        if tokenizer is not None and (mistake := template_mistake(tokenizer, format)):
            yield _template_mistake(config, role, key, mistake)


def _tokenizer_of(model: str, format: ChatFormat, paths: Mapping[str, Path]) -> PreTrainedTokenizerFast | None:
    """The tokenizer that ``format`` is used with, if it is here. For a template in a file any other will do, and so for
    the miniature's models, which have none."""
    directory = paths.get(model, expand_home(model))
    if is_file(directory / "tokenizer.json") and not _mistakes_of(load_tokenizer, directory):
        return load_tokenizer(directory)
    return byte_tokenizer() if format.template is not None or model.startswith(MINIATURE) else None


def _template_mistake(config: Config, role: FormatRole, key: str, mistake: str) -> str:
    template = config.supervision.chat_template
    if role != "policy":
        fix = f"set {role}.dialogue_format=human_assistant, or name a model with a chat template"
        return f"{key}={flatten(config)[key]}: {mistake}; {fix}"
    if template is None:
        fix = "name a Jinja file with supervision.chat_template=FILE, or set dialogue_format=human_assistant"
        return f"{key}={flatten(config)[key]}: {mistake}; {fix}"
    return (
        f"supervision.chat_template={template}: {mistake}; "
        "correct the file, or set dialogue_format=human_assistant supervision.chat_template=null"
    )


def _name_mistakes(key: str, value: str, names: Sequence[str]) -> Iterator[str]:
    if value.startswith(MINIATURE) and value.removeprefix(MINIATURE) not in names:
        yield f"{key}={value}: no such miniature; use one of {', '.join(names)}"


# ------------------------------------------------------------------------------------------------------- clusters
def _engine_mistakes(config: Config) -> Iterator[str]:
    """Engines that only the in-process runner can use."""
    for role, pool in pools_of(config).items():
        if ENGINES[pool.engine].in_process_only:
            others = " or ".join(name for name, kind in ENGINES.items() if not kind.in_process_only)
            yield f"{role}.engine={pool.engine}: this engine runs in one process only; use {others}"


def _path_mistakes(config: Config) -> Iterator[str]:
    """Paths that mean nothing on another cluster. Whether an absolute path or a URL exists is checked there."""
    named = _values(config, (*SOURCE_KEYS, *MODEL_KEYS))
    paths = {
        key: value
        for key, value in named.items()
        if not (is_data_set(value) or value.startswith(MINIATURE) or is_url(value))
    }
    paths = {key: value for key, value in paths.items() if key not in MODEL_KEYS or not is_hub_name(value)}
    paths["run_dir"] = config.run_dir
    if any(value.startswith(MINIATURE) for value in named.values()):
        paths["miniature.cache_dir"] = config.miniature.cache_dir
    for key, value in paths.items():
        if not Path(value).is_absolute():
            yield f"{key}={value}: the nodes of a cluster do not see it; give an absolute path on storage they share"
