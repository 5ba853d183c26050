"""The checks before anything starts: files, sources, models, engines, run directories, paths of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from rlaif.config.contradictions import flatten
from rlaif.config.files import load_config
from rlaif.config.schema import Config, Generator, Resources
from rlaif.config.source import Source
from rlaif.errors import ConfigError, ModelError, RunDirError
from rlaif.miniature.make import FILES, MODELS
from rlaif.preflight import MODEL_KEYS, SOURCE_KEYS, Needs, Runner, check_models, preflight
from rlaif.storage.run_dir import RunDir
from tests.object_store import ObjectStore
from tests.tiny_models import saved, tiny_config, tiny_lm, tiny_pm
from tests.unit.prompting.chat_tokenizers import CHATML, GEMMA, with_template

WHOLE_RUN = Needs()
SHARED: dict[str, Any] = {
    "run_dir": "/mnt/shared/runs/one",
    "data": {"red_team": "/mnt/shared/prompts.jsonl", "helpful": "hf:some/set", "helpful_pairs": None, "votes": None},
    "evaluation": {"red_team": "/mnt/shared/a.jsonl", "helpful": "/mnt/shared/b.jsonl"},
    "generator": {"model": "/mnt/shared/model"},
    "labeller": {"model": "organisation/name"},
    "supervision": {"base_model": "organisation/base"},
    "preference_model": {"base_model": "organisation/base"},
}


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def mistakes(config: Config, runner: Runner = "in_process", needs: Needs = WHOLE_RUN) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        preflight(config, needs, runner)
    return str(raised.value).splitlines()


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return write(tmp_path / "empty.yaml", f"run_dir: {tmp_path / 'run'}\n")


# ------------------------------------------------------------------------------------------- sources and models
def test_missing_files_are_named_all_at_once(empty: Path, tmp_path: Path) -> None:
    write(tmp_path / "notes.txt")
    (tmp_path / "nothing").mkdir()
    config = load_config(
        empty,
        [
            f"data.red_team={tmp_path}/gone.jsonl",
            f"data.helpful={tmp_path}/notes.txt",
            f"evaluation.helpful={tmp_path}/nothing",
            "data.votes=miniature:votess",
            "generator.model=miniature:helpful",
            f"labeller.model={tmp_path}",
            "data.helpful_pairs=hf:any/name",
            "miniature.lexicon=gone.yaml",
            "labelling.template=gone.txt",
            "constitution=none_such",
        ],
    )
    keys = {line.partition("=")[0] for line in mistakes(config)}
    assert keys == {
        "data.red_team",
        "data.helpful",
        "data.votes",
        "evaluation.helpful",
        "generator.model",
        "labeller.model",
        "labelling.template",
        "miniature.lexicon",
        "constitution",
    }


def test_a_missing_source_says_where_paths_start(empty: Path) -> None:
    (line,) = mistakes(load_config(empty, ["data.red_team=gone.jsonl"]))
    assert line.startswith("data.red_team=gone.jsonl: no such file")
    assert line.endswith(f"relative to the working directory ({Path.cwd()})")


def test_splits_in_one_directory_are_refused_without_a_word_on_where_paths_start(empty: Path, tmp_path: Path) -> None:
    write(tmp_path / "data" / "train" / "a.jsonl", "{}")
    write(tmp_path / "data" / "test" / "a.jsonl", "{}")
    (line,) = mistakes(load_config(empty, [f"data.red_team={tmp_path}/data"]))
    assert line.startswith(f"data.red_team={tmp_path}/data: holds the splits train and test")
    assert line.endswith(f"name one: {tmp_path}/data/train or {tmp_path}/data/test")


def test_what_a_directory_holds_besides_data_is_said(
    empty: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jsonl", "b.xlsx", "._a.jsonl"):
        write(tmp_path / "data" / name, "{}")
    preflight(load_config(empty, [f"data.helpful={tmp_path}/data"]), Needs(), "ray")
    others = "b.xlsx (unknown kind of file), ._a.jsonl (hidden)"
    assert caplog.messages == [f"data.helpful={tmp_path}/data: passed over {others}"]


def test_an_adapter_is_refused_for_what_it_is(empty: Path, tmp_path: Path) -> None:
    write(tmp_path / "lora" / "adapter_config.json", "{}")
    (line,) = mistakes(load_config(empty, [f"generator.model={tmp_path}/lora"]))
    assert line.startswith(f"generator.model={tmp_path}/lora: a LoRA adapter without its model; merge it")


def test_existing_sources_pass(empty: Path, tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl")
    overrides = [f"data.red_team={tmp_path}/data", f"data.helpful={tmp_path}/data/a.jsonl"]
    preflight(load_config(empty, overrides), Needs(), "ray")


def test_a_source_of_keys_and_values_is_checked_by_its_path(empty: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")
    named = [f"data.red_team={tmp_path}/a.jsonl", "data.red_team.prompt=request.text", "data.red_team.limit=3"]
    preflight(load_config(empty, named), Needs(), "ray")
    (line,) = mistakes(load_config(empty, [*named, "data.red_team.path=gone.jsonl"]))
    assert line.startswith("data.red_team=gone.jsonl: no such file")
    (line,) = mistakes(load_config(empty, [*named, "data.red_team.limit=9-3"]))
    assert line.startswith(f"data.red_team={tmp_path}/a.jsonl#9-3: #ROWS is")
    shared = load_config(empty, ["run_dir=/x", "miniature.cache_dir=/y", *named, "data.red_team.path=a.jsonl"])
    with pytest.raises(ConfigError, match=r"data\.red_team=a\.jsonl#1-3: the nodes of a cluster do not see it"):
        preflight(shared, Needs(), "job")


def test_every_name_of_the_miniature_passes(empty: Path) -> None:
    for key, names in (("data.red_team", FILES), ("generator.model", MODELS)):
        for name in names:
            preflight(load_config(empty, [f"{key}=miniature:{name}"]), Needs(), "ray")


def test_a_model_is_checked_for_the_role_that_it_plays(empty: Path, tmp_path: Path) -> None:
    config = tiny_config(tied=True)
    config.max_position_embeddings = 64
    short, scores = saved(LlamaForCausalLM(config), tmp_path / "short"), saved(tiny_pm(1), tmp_path / "scores")
    asked = load_config(empty, [f"generator.model={short}", f"labeller.model={scores}", "labeller.max_length=64"])
    too_long, of_wrong_kind = mistakes(asked)
    assert too_long == f"generator.model={short}: max_length=4096 is beyond the model's 64 positions"
    assert of_wrong_kind.startswith(f"labeller.model={scores}: LlamaForSequenceClassification generates no text")
    preflight(asked, Needs(serves_all=False), "in_process")  # one stage, which may open neither
    scripted = ["generator.engine=scripted", "labeller.engine=scripted"]
    preflight(load_config(empty, [f"generator.model={short}", f"labeller.model={scores}", *scripted]), Needs(), "ray")


def test_the_helpful_only_model_and_the_base_may_judge(empty: Path) -> None:
    for name in ("helpful_only", "base"):
        preflight(load_config(empty, [f"labeller.model=miniature:{name}"]), Needs(), "ray")


@pytest.mark.parametrize("run", ["mine", "other"])
@pytest.mark.parametrize("model", ["models/sl_cai", "models/rl_cai", "checkpoints/00020/policy"])
def test_a_trained_policy_may_not_judge_itself(empty: Path, tmp_path: Path, run: str, model: str) -> None:
    write(tmp_path / "other" / "manifest.json", "{}")
    path = Path(saved(tiny_lm(1, tied=True), tmp_path / run / model))
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        config = load_config(empty, [f"labeller.model={name}", f"run_dir={tmp_path}/mine", "labeller.max_length=256"])
        (line,) = mistakes(config)
        assert line.startswith(f"labeller.model={name}: a policy that a run trains (SL-CAI or later), which must not")
        assert line.endswith("which may be generator.model=miniature:helpful_only")
        preflight(config, Needs(models=("labeller.model",)), "ray")  # `rlaif label`: trains none


def test_a_models_directory_outside_runs_may_judge(empty: Path, tmp_path: Path) -> None:
    path = saved(tiny_lm(1, tied=True), tmp_path / "models" / "sl_cai")
    preflight(load_config(empty, [f"labeller.model={path}", "labeller.max_length=256"]), Needs(), "ray")


def test_preference_model_and_policy_must_share_a_tokenizer(empty: Path, tmp_path: Path) -> None:
    one, other = saved(tiny_lm(1, tied=True), tmp_path / "one"), saved(tiny_lm(2, tied=True), tmp_path / "other")
    named = [f"supervision.base_model={one}", f"preference_model.base_model={other}"]
    preflight(load_config(empty, named), Needs(), "ray")
    tokenizer = json.loads(Path(other, "tokenizer.json").read_text())
    swap_two_tokens(tokenizer["model"]["vocab"])
    Path(other, "tokenizer.json").write_text(json.dumps(tokenizer))
    (line,) = mistakes(load_config(empty, named), "ray")
    assert line.startswith(f"preference_model.base_model={other}: its tokenizer is not that of supervision.base_model")
    preflight(load_config(empty, named), Needs(models=("labeller.model",)), "ray")  # labels need neither


def test_a_tokenizer_of_a_larger_sibling_is_refused(empty: Path, tmp_path: Path) -> None:
    model = Path(saved(tiny_lm(1, tied=True), tmp_path / "model"))
    preflight(load_config(empty, [f"supervision.base_model={model}"]), Needs(), "ray")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 200}))
    (line,) = mistakes(load_config(empty, [f"supervision.base_model={model}"]), "ray")
    assert line.startswith(f"supervision.base_model={model}: its tokenizer has ids up to 255, its embeddings only 200;")


def swap_two_tokens(vocabulary: dict[str, int]) -> None:
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def test_what_had_to_be_fetched_is_checked_where_it_is(tmp_path: Path) -> None:
    config = Config.model_validate({"generator": {"model": "organisation/name"}})
    model = Path(saved(tiny_lm(1, tied=True), tmp_path / "model"))
    paths = {flatten(config)[key]: model for key in MODEL_KEYS}
    needs = Needs(serves_all=False)
    check_models(config, needs, paths)
    (model / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=rf"^generator\.model={model}: .*it lacks tokenizer\.json"):
        check_models(config, needs, paths)


# ----------------------------------------------------------------------------------------------- constitutions
def test_a_constitution_without_what_the_miniature_learns_from_is_refused(empty: Path, tmp_path: Path) -> None:
    only_revisions = write(
        tmp_path / "c.yaml",
        "{name: n, version: '1', principles: "
        "[{id: a, category: honesty, source: s, comparison: Truer, critique_request: Lies, revision_request: Fix}]}",
    )
    preflight(load_config(empty, [f"constitution={only_revisions}"]), Needs(), "ray")
    only_revisions.write_text(only_revisions.read_text().replace("critique_request: Lies, revision_request: Fix", ""))
    lines = mistakes(load_config(empty, [f"constitution={only_revisions}"]))
    assert any("has no principle with critique_request" in line for line in lines)
    labels = Needs(models=("labeller.model",), sources=("data.comparisons",), revises=False)
    (line,) = mistakes(load_config(empty, [f"constitution={only_revisions}"]), needs=labels)
    assert "the miniature's models learn from both kinds of principles" in line


# --------------------------------------------------------------------------------------------------------- URLs
def test_sources_in_object_storage_are_looked_for_and_not_read(empty: Path, object_store: ObjectStore) -> None:
    data = {
        "red_team": object_store.put("a.jsonl", b"unread"),
        "helpful": object_store.url("gone.jsonl"),
        "helpful_pairs": "s3://elsewhere/a.jsonl",
    }
    config = load_config(empty, [f"data.{name}={url}" for name, url in data.items()])
    assert mistakes(config) == [
        "data.helpful=s3://books/gone.jsonl: no such file or directory",
        "data.helpful_pairs=s3://elsewhere/a.jsonl: cannot be read: there is no such bucket",
    ]


@pytest.mark.parametrize("runner", ["in_process", "job"])
def test_urls_that_cannot_be_used_are_refused_and_no_secret_is_repeated(empty: Path, runner: Runner) -> None:
    keys = ("data.red_team", "data.votes", "evaluation.helpful", "run_dir", "labeller.model", "constitution")
    lines = mistakes(load_config(empty, [f"{key}=s3://me:s3cr/et@books/a.jsonl" for key in keys]), runner)
    assert {line.partition("=s3://...: holds credentials")[0] for line in lines} == set(keys)
    assert not any("s3cr" in line or "et@" in line for line in lines)
    config = load_config(
        empty, ["run_dir=s3://books/run", "generator.model=s3://books/model", "labelling.template=s3://books/a.txt"]
    )
    lines = {line.partition("=")[0]: line for line in mistakes(config, runner)}
    assert lines.keys() == {"run_dir", "generator.model", "labelling.template"}
    assert "copy the results with `rlaif export RUN_DIR s3://books/run`" in lines["run_dir"]


# ----------------------------------------------------------------------------------------------- run directories
def test_a_run_directory_of_another_run_is_refused_and_left_alone(empty: Path, tmp_path: Path) -> None:
    config = load_config(empty)
    preflight(config, Needs(), "ray")
    assert not Path(config.run_dir).exists()
    run_dir = RunDir(Path(config.run_dir), config)
    run_dir.close()
    before = {path: path.stat().st_mtime_ns for path in Path(config.run_dir).rglob("*")}
    with pytest.raises(RunDirError, match="different: seed; choose another run_dir="):
        preflight(load_config(empty, ["seed=7"]), Needs(), "ray")
    preflight(load_config(empty, ["labelling.gate.max_flip_rate=0.9"]), Needs(), "ray")
    assert {path: path.stat().st_mtime_ns for path in Path(config.run_dir).rglob("*")} == before


# ----------------------------------------------------------------------------------------------------- clusters
def test_the_transformers_engine_is_refused_on_a_cluster_only(tmp_path: Path) -> None:
    config = Config(generator=Generator(engine="hf"), run_dir=str(tmp_path / "run"))
    (line,) = mistakes(config, "ray")
    assert line.startswith("generator.engine=hf")
    preflight(config, Needs(), "in_process")
    preflight(Config(resources=Resources(cpus=1), run_dir=str(tmp_path / "run")), Needs(), "ray")


def test_urls_can_go_to_a_cluster_and_are_checked_there() -> None:
    data = SHARED["data"] | {"red_team": "s3://nowhere/prompts.jsonl", "helpful_pairs": "https://host/a.parquet#10"}
    preflight(Config.model_validate(SHARED | {"data": data}), Needs(), "job")


def test_absolute_paths_and_names_can_go_to_a_cluster() -> None:
    preflight(Config.model_validate(SHARED), Needs(), "job")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("run_dir", "runs/one"),
        ("data", {"red_team": "prompts.jsonl"}),
        ("generator", {"model": "./model"}),
        ("supervision", {"base_model": "~/base"}),
        ("miniature", {"cache_dir": "~/cache"}),
    ],
)
def test_what_only_this_machine_sees_is_named(section: str, values: object) -> None:
    changed = SHARED[section] | values if section in SHARED and isinstance(values, dict) else values
    config = Config.model_validate(SHARED | {section: changed})
    if section == "miniature":  # its directory matters only when something from it is used
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"votes": Source(path="miniature:votes")})}
        )
    key = section if isinstance(values, str) else f"{section}.{next(iter(values))}"
    (line,) = mistakes(config, "job")
    assert line.startswith(f"{key}={flatten(config)[key]}: ") and "absolute path" in line


def test_names_that_do_not_exist_are_not_sent_to_a_cluster() -> None:
    changes = {"data": SHARED["data"] | {"votes": "miniature:votess"}, "labeller": {"model": "miniature:judge"}}
    changes["miniature"] = {"cache_dir": "/mnt/shared/cache"}
    keys = {line.partition("=")[0] for line in mistakes(Config.model_validate(SHARED | changes), "job")}
    assert keys == {"data.votes", "labeller.model"}


def test_keys_are_those_of_the_configuration() -> None:
    assert set(flatten(Config())) >= {*SOURCE_KEYS, *MODEL_KEYS}


# ---------------------------------------------------------------------------------------------- chat templates
def chat_model(path: Path, template: str | None) -> str:
    tokenizer, model = with_template(template), tiny_lm(1, tied=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    saved(model, path)
    tokenizer.save_pretrained(path)
    return str(path)


def chat_config(empty: Path, tmp_path: Path, *overrides: str) -> Config:
    """Three models without a chat template, under the format that needs one."""
    models = {key: chat_model(tmp_path / key, None) for key in ("generator.model", "labeller.model", "base")}
    models["supervision.base_model"] = models["preference_model.base_model"] = models.pop("base")
    lengths = [f"{key}=256" for key in ("generator.max_length", "labeller.max_length")]
    tokens = ("sampling.max_tokens", "critique_revision.max_critique_tokens", "critique_revision.max_revision_tokens")
    lengths += [f"{key}=64" for key in tokens]
    named = [f"{key}={path}" for key, path in models.items()]
    return load_config(empty, ["dialogue_format=chat_template", *lengths, *named, *overrides])


def test_models_without_a_chat_template_are_named_one_by_one(empty: Path, tmp_path: Path) -> None:
    config = chat_config(empty, tmp_path)
    lines = dict(line.split(": its tokenizer has no chat template; ") for line in mistakes(config))
    assert lines == {
        f"generator.model={tmp_path}/generator.model": (
            "set generator.dialogue_format=human_assistant, or name a model with a chat template"
        ),
        f"labeller.model={tmp_path}/labeller.model": (
            "set labeller.dialogue_format=human_assistant, or name a model with a chat template"
        ),
        f"supervision.base_model={tmp_path}/base": (
            "name a Jinja file with supervision.chat_template=FILE, or set dialogue_format=human_assistant"
        ),
    }
    assert len(mistakes(config, needs=Needs(models=("labeller.model",)))) == 1  # `rlaif label`


def test_the_miniatures_models_have_no_chat_template(empty: Path) -> None:
    lines = mistakes(load_config(empty, ["dialogue_format=chat_template"]), "ray")
    named = ["generator.model=miniature:helpful_only", "labeller.model=miniature:feedback"]
    assert [line.partition(": its")[0] for line in lines] == [*named, "supervision.base_model=miniature:base"]


def test_the_ways_on_work(empty: Path, tmp_path: Path) -> None:
    template = write(tmp_path / "own.jinja", CHATML)
    roles = ["generator.dialogue_format=human_assistant", "labeller.dialogue_format=human_assistant"]
    preflight(chat_config(empty, tmp_path, *roles, f"supervision.chat_template={template}"), Needs(), "ray")
    preflight(chat_config(empty, tmp_path, "dialogue_format=human_assistant"), Needs(), "ray")


def test_templates_that_only_want_roles_to_alternate_pass(empty: Path, tmp_path: Path) -> None:
    path = chat_model(tmp_path / "gemma", GEMMA)
    models = [f"{key}={path}" for key in MODEL_KEYS]
    preflight(chat_config(empty, tmp_path, *models), Needs(), "ray")


def test_a_template_file_is_probed_before_a_job_is_sent(tmp_path: Path) -> None:
    template = write(tmp_path / "own.jinja", "{% for m in messages %}{{ m.content }")
    values = {**SHARED, "dialogue_format": "chat_template"}
    values["supervision"] = {**SHARED["supervision"], "chat_template": str(template)}
    (line,) = mistakes(Config.model_validate(values), "job")
    assert line.startswith(f"supervision.chat_template={template}: the chat template refuses the roles user: Template")
    assert line.endswith("set dialogue_format=human_assistant supervision.chat_template=null")


def test_what_was_fetched_is_probed_where_it_is(tmp_path: Path) -> None:
    config = Config.model_validate({"labeller": {"model": "organisation/name", "dialogue_format": "chat_template"}})
    needs, path = Needs(models=("labeller.model",), serves_all=False), Path(chat_model(tmp_path / "it", None))
    with pytest.raises(ModelError, match=r"^labeller\.model=organisation/name: its tokenizer has no chat template"):
        check_models(config, needs, {"organisation/name": path})
