import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.config.files import carried_name, differences, dump_config, load_config
from rlaif.config.schema import Config
from rlaif.engines import ENGINES
from rlaif.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]
ENGINE_NAMES = " or ".join((", ".join([*ENGINES][:-1]), [*ENGINES][-1]))
SHIPPED = sorted((REPOSITORY / "configs").glob("*.yaml"))


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def empty(tmp_path):
    return write(tmp_path / "empty.yaml")


def mistakes(path, *overrides):
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return str(error.value).splitlines()


# ------------------------------------------------------------------------------------------------------ layers
def test_an_empty_file_is_the_defaults(empty):
    assert load_config(empty) == Config()


def test_a_file_goes_over_what_it_extends_and_overrides_over_all(tmp_path):
    write(tmp_path / "base" / "b.yaml", "seed: 1\ngenerator: {max: 4, min: 2}\nresources: {custom: {a: 1}}\n")
    top = write(
        tmp_path / "top.yaml",
        "extends: base/b.yaml\ngenerator:\n  max: 8\nlabeller:\nresources: {custom: {b: 2}}\n",
    )
    config = load_config(top, ["generator.min=3", "resources.custom.c=3", "data.votes=null"])
    assert (config.seed, config.generator.max, config.generator.min) == (1, 8, 3)
    assert config.resources.custom == {"a": 1, "b": 2, "c": 3}
    assert config.data.votes is None


def test_exponents_without_a_dot_are_numbers(empty):
    assert load_config(empty, ["reinforcement.learning_rate=1e-6"]).reinforcement.learning_rate == 1e-6


def test_extending_in_a_circle_is_named(tmp_path):
    write(tmp_path / "a.yaml", "extends: b.yaml")
    write(tmp_path / "b.yaml", "extends: a.yaml")
    (line,) = mistakes(tmp_path / "a.yaml")
    assert "a.yaml -> b.yaml -> a.yaml" in line


def test_a_missing_base_names_both_files(tmp_path):
    (line,) = mistakes(write(tmp_path / "a.yaml", "extends: gone.yaml"))
    assert "gone.yaml" in line
    assert "a.yaml" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2\n", "line 2: not YAML"),
        ("seed: 1\ndata:\n  votes: x\n  votes: y\n", "line 4: not YAML: key votes appears twice"),
        ("- seed\n", "must hold keys and values"),
        ("seed: !!int x\n", "line 1: not YAML: a value that cannot be read"),
        (f"seed: {'9' * 5000}\n", "line 1: not YAML: a value that cannot be read"),
        (f"seed: {'[' * 5000}\n", "not YAML: nested too deeply"),
        ("data: &a {votes: *a}\n", "line 1: not YAML: found unconstructable recursive node"),
    ],
)
def test_malformed_yaml_names_the_line(tmp_path, text, said):
    file = write(tmp_path / "a.yaml", text)
    (line,) = mistakes(file, "generator.min=7")  # contradictions with unparsed values are not reported
    assert str(file) in line
    assert said in line


@pytest.mark.parametrize("key", ["run_dir", "data.red_team", "data.votes", "labeller.model", "constitution"])
@pytest.mark.parametrize(
    "text",
    [
        *("out #2", "2024-01-02", "2024-13-45", "in/Run: final.jsonl", "@x", "%x.jsonl", "*.jsonl", "&x", "!x"),
        *("3", "1e5", "off", "yes", "0x1f", "1:30", "[a].jsonl", "a, b", "- a", "? a", "it's", '"a" and "b"', "`x`"),
        *("{a", "|", "a=b", " a", "x\ty", "hf:a/b", "~nobody/x", "\\\\host\\share"),
    ],
)
def test_a_value_of_a_text_field_is_taken_as_it_is(empty, key, text):
    for config in (load_config(empty, [f"{key}={text}"]), load_config(empty, [], {key: text})):
        section, _, name = key.rpartition(".")
        assert str(getattr(getattr(config, section) if section else config, name)) in (text, str(Path.cwd() / text))


def test_null_quotes_and_names_in_overrides(empty):
    config = load_config(empty, ["data.votes=null", "data.comparisons=", "data.helpful='null'", 'run_dir="3"'])
    assert (config.data.votes, config.data.comparisons, str(config.data.helpful)) == (None, None, "null")
    assert config.run_dir == "3"
    assert load_config(empty, ["labelling.reasoning.mode=off"]).labelling.reasoning.mode == "off"
    assert load_config(empty, ["run_dir=null"]).run_dir == "null"  # it may not be null, so it is a directory's name


def test_values_that_are_not_text_are_still_yaml(empty):
    overrides = ["labelling.gate.override=[flip_rate]", "resources.custom={x: 2}", "critique_revision.critique=false"]
    config = load_config(empty, [*overrides, "policy_trainer.zero_stage=2", "preference_model.refresh.max_pairs=null"])
    assert (config.labelling.gate.override, config.resources.custom) == (("flip_rate",), {"x": 2.0})
    assert (config.critique_revision.critique, config.policy_trainer.zero_stage) == (False, 2)
    assert load_config(empty, ["critique_revision.critique=no"]).critique_revision.critique is False


def test_keys_are_text_as_they_are_written(empty):
    config = load_config(empty, ["resources.custom={1: 2, true: 3, 0x10: 4}"])
    assert config.resources.custom == {"1": 2, "true": 3, "0x10": 4}


def test_a_name_that_is_not_utf_8_is_refused(empty):
    assert mistakes(empty, "run_dir=caf\udce9") == [
        "run_dir=caf\udce9: must be text in UTF-8; rename the file or directory, or remove what is no character"
    ]


@pytest.mark.parametrize("name", ["a\x85b", "a\u2028b", "a\nb", "a\u2029", "größe", "友"])
def test_any_name_survives_in_the_stored_configuration(tmp_path, empty, name):
    config = load_config(empty, [], {"run_dir": name})
    assert load_config(write(tmp_path / "stored.yaml", dump_config(config))) == config


def test_values_are_never_parsed_and_are_checked_as_all_others(empty):
    config = load_config(empty, ["run_dir=weaker"], {"run_dir": "null", "data.votes": None, "seed": 3})
    assert (config.run_dir, config.data.votes, config.seed) == ("null", None, 3)
    with pytest.raises(ConfigError, match=r"labeller\.modle: unknown key; did you mean labeller\.model"):
        load_config(empty, [], {"labeller.modle": "x"})


def test_a_key_below_a_value_is_unknown(tmp_path):
    file = write(tmp_path / "a.yaml", "run_dir: runs/x\n")
    assert mistakes(file, "run_dir.x=3") == ["run_dir.x: unknown key; did you mean run_dir?"]


def test_a_number_in_place_of_text_is_to_be_quoted(tmp_path):
    (line,) = mistakes(write(tmp_path / "a.yaml", "run_dir: 2024\n"))
    assert line == "run_dir=2024: must be text; put it in quotes"


def test_dates_and_words_of_a_file_are_text(tmp_path):
    text = (
        "run_dir: 2024-01-02\ndata: {votes: no}\nlabelling: {reasoning: {mode: off}}\ncritique_revision: {critique: no}"
    )
    config = load_config(write(tmp_path / "a.yaml", text))
    assert (config.run_dir, str(config.data.votes), config.labelling.reasoning.mode) == ("2024-01-02", "no", "off")
    assert config.critique_revision.critique is False


# -------------------------------------------------------------------------------------------------- merge keys
def test_merge_keys_are_weaker_than_the_keys_beside_them(tmp_path):
    text = """
        generator: &pool {min: 2, max: 3, cpus: 2, autoscale: {enabled: true}}
        labeller:
          max: 5
          <<: *pool
          cpus: 1
        scorer: {<<: [{max: 4}, *pool], min: 3}
    """
    config = load_config(write(tmp_path / "merge.yaml", text))
    assert (config.labeller.min, config.labeller.max, config.labeller.cpus) == (2, 5, 1)
    assert (config.scorer.min, config.scorer.max, config.scorer.cpus) == (3, 4, 2)
    assert config.labeller.autoscale.enabled and config.generator.max == 3


def test_a_key_may_hold_only_what_is_merged(tmp_path):
    text = "x-pool: &pool {max: 3}\nlabeller: {<<: *pool}\n"
    assert load_config(write(tmp_path / "a.yaml", text)).labeller.max == 3
    (line,) = mistakes(write(tmp_path / "b.yaml", text.replace("x-pool", "generater")))
    assert line == "generater: unknown key; did you mean generator?"
    (line,) = mistakes(write(tmp_path / "c.yaml", text.replace("<<: *pool", "max: 2")))
    assert line.startswith("x-pool: unknown key")


@pytest.mark.parametrize(
    "text",
    [
        "generator: &p {max: 3}\nlabeller: {max: 2, <<: *p, max: 4}",
        "generator: &p {max: 3, max: 4}\nlabeller: {<<: *p}",
        "labeller: {<<: {max: 3, max: 4}}",
        "generator: &p {max: 3}\nlabeller: {<<: *p, <<: {min: 1}}",
    ],
)
def test_a_key_written_twice_is_refused_with_merge_keys_too(tmp_path, text):
    (line,) = mistakes(write(tmp_path / "a.yaml", text))
    assert "appears twice" in line


def test_a_missing_file_is_named(tmp_path):
    (line,) = mistakes(tmp_path / "gone.yaml")
    assert line.startswith(f"{tmp_path / 'gone.yaml'}: no such file")


def test_files_belong_to_the_file_that_names_them_and_data_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "work" / "here.yaml").parent)
    write(tmp_path / "lib" / "base.yaml", "constitution: mine.yaml\nminiature: {lexicon: words.yaml}\n")
    top = write(tmp_path / "top.yaml", "extends: lib/base.yaml\nrun_dir: runs/x\ndata: {red_team: a.jsonl}\n")
    config = load_config(top, ["miniature.lexicon=words.yaml"])
    assert config.constitution == str(tmp_path / "lib" / "mine.yaml")
    assert config.miniature.lexicon == str(tmp_path / "work" / "words.yaml")
    assert (config.run_dir, str(config.data.red_team)) == ("runs/x", "a.jsonl")
    assert load_config(write(tmp_path / "named.yaml", "constitution: sixteen_principles")).constitution == (
        "sixteen_principles"
    )


def test_the_dump_loads_as_itself_from_anywhere(tmp_path):
    write(tmp_path / "a.yaml", "constitution: c.yaml\nlabelling: {gate: {override: [flip_rate]}}\n")
    config = load_config(tmp_path / "a.yaml", ["resources.custom.x=2"])
    assert load_config(write(tmp_path / "elsewhere" / "config.yaml", dump_config(config))) == config


def test_differences_are_dotted_keys(empty):
    config = load_config(empty, ["seed=3", "reinforcement.kl.coefficient=0.2", "resources.custom.x=1"])
    assert differences(Config(), config) == ["seed", "reinforcement.kl.coefficient", "resources.custom"]
    assert differences(config, config) == []


# ---------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("generator.modle=x", "generator.modle: unknown key; did you mean generator.model?"),
        ("labelling.rounds=2", "labelling.rounds: unknown key; did you mean critique_revision.rounds?"),
        ("generater.model=x", "generater: unknown key; did you mean generator?"),
        ("zzzzqqq=1", "zzzzqqq: unknown key; remove it"),
        ("seed=1.5", "seed=1.5: must be a whole number; write one such as 8"),
        ("sampling.temperature=hot", "sampling.temperature=hot: must be a number; write one such as 0.5"),
        ("sampling.temperature=0", "sampling.temperature=0: must be more than 0; change the number"),
        ("sampling.temperature=.inf", "sampling.temperature=Infinity: must be a finite number; write"),
        ("critique_revision.rounds=9", "critique_revision.rounds=9: must be at most 4; change the number"),
        ("critique_revision.critique=maybe", "critique_revision.critique=maybe: must be true or false; write"),
        ("generator.engine=sglang", f"generator.engine=sglang: must be one of {ENGINE_NAMES}; choose"),
        ("run_dir=", "run_dir=: must not be empty; write something"),
        ("data=3", "data=3: must be keys and values; indent them below it"),
        ("labelling.gate.override=flip_rate", "labelling.gate.override=flip_rate: must be a list; write [a, b]"),
        ("scorer.placement=[]", "scorer.placement=[]: must be keys and values; write {name: number}"),
        ("resources.custom.a=-1", "resources.custom.a=-1: must be more than 0; change the number"),
        ("seed", "seed: not an override; write section.key=value"),
        ("a..b=1", "a..b=1: not an override; write section.key=value"),
        ("resources.custom=[", "resources.custom=[: not a YAML value"),
        ("critique_revision=? ", "critique_revision=? : not a YAML value: a key is empty; correct it"),
        ("critique_revision={1: 2}", "critique_revision.1: unknown key; did you mean critique_revision?"),
        ("generator.placement={1.5: x}", "generator.placement.1.5=x: must be a number; write one such as 0.5"),
        ("resources.custom={a: 1, a: 2}", "resources.custom={a: 1, a: 2}: not a YAML value: key a appears twice"),
        ("data.red_tem=@x: y", "data.red_tem: unknown key; did you mean data.red_team?"),
    ],
)
def test_a_wrong_value_is_explained_in_one_line(empty, override, line):
    (said,) = mistakes(empty, override)
    assert said.startswith(line)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["generator.min=2"], "generator.min=2: must be at most generator.max=1"),
        (
            ["labeller.autoscale.enabled=true"],
            "labeller.autoscale.enabled=true: with labeller.min=1 and max=1",
        ),
        (
            ["labeller.gpus=0.5", "labeller.tensor_parallel=2"],
            "labeller.gpus=0.5: with labeller.tensor_parallel=2: ranks",
        ),
        (["policy_trainer.gpus=0.5", "policy_trainer.ranks=2"], "policy_trainer.gpus=0.5: with policy_trainer.ranks=2"),
        (["scorer.gpus=1.5"], "scorer.gpus=1.5: more than one GPU must be a whole number; use 1 or 2"),
        (["scorer.chunk_rows=200"], "scorer.chunk_rows=200: must be at most scorer.max_in_flight=128"),
        (["reinforcement.algorithm=grpo"], "reinforcement.group_size=1: with reinforcement.algorithm=grpo"),
        (["reinforcement.group_size=3"], "reinforcement.batch_size=256: with reinforcement.group_size=3"),
        (["reinforcement.minibatch_size=48"], "reinforcement.batch_size=256: with reinforcement.minibatch_size=48"),
        (["sampling.max_tokens=4096"], "sampling.max_tokens=4096: with generator.max_length=4096"),
        (["preference_trainer.micro_batch_tokens=100"], "preference_model.max_length=4096: with preference_trainer"),
        (
            ["reinforcement.helpfulness_penalty=1", "reinforcement.helpful_fraction=0"],
            "reinforcement.helpfulness_penalty=1.0: with reinforcement.helpful_fraction=0.0",
        ),
    ],
)
def test_values_that_contradict_each_other_are_named_together(empty, overrides, said):
    (line,) = mistakes(empty, *overrides)
    assert line.startswith(said)


def test_all_mistakes_are_shown_at_once(tmp_path):
    write(tmp_path / "base.yaml", "generator: {min: 5}\n")
    file = write(tmp_path / "a.yaml", "extends: base.yaml\nseed: x\nlabelling:\n  gate: {max_flip_rate: 2}\nfoo: 1\n")
    lines = mistakes(file, "scorer.min=0", "nonsense")
    keys = {line.partition("=")[0].partition(":")[0] for line in lines}
    assert keys == {"seed", "labelling.gate.max_flip_rate", "foo", "scorer.min", "nonsense", "generator.min"}


def test_a_contradiction_with_a_wrong_value_is_not_reported_twice(empty):
    (line,) = mistakes(empty, "reinforcement.algorithm=grpo", "reinforcement.group_size=none")
    assert line.startswith("reinforcement.group_size=none: must be a whole number")


# ---------------------------------------------------------------------------------------------------- promises
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_configuration_loads(file):
    config = load_config(file)
    assert load_config(file, ["seed=7"]).seed == 7
    assert config.run_dir


def test_settings_are_read_without_heavy_libraries():
    light = "rlaif.config.schema, rlaif.config.files, rlaif.records, rlaif.errors, rlaif.interfaces"
    light += ", rlaif.constitution.principles"
    light += ", rlaif.data.prompts, rlaif.data.pairs, rlaif.data.votes"
    if (REPOSITORY / "actors" / "cli").exists():
        light += ", actors.cli.__main__"
    heavy = ("torch", "vllm", "ray", "transformers", "deepspeed", "datasets", "matplotlib")
    code = f"import sys, {light}; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("suffix", ["", ".yaml", ".const-v2", ".tar.gz", ".a b"])
def test_files_that_travelled_are_compared_by_name_whatever_their_suffix(suffix):
    one, two = (
        Config(constitution=f"/{place}/{carried_name('mine', b'content', suffix)}") for place in ("first", "second")
    )
    assert differences(one, two) == []
    other = Config(constitution=f"/second/{carried_name('mine', b'other', suffix)}")
    assert differences(one, other) == ["constitution"]
