"""Each role's dialogue format, and the tokenizer that the policy is saved with."""

from __future__ import annotations

from datetime import date

import pytest
from transformers import AutoTokenizer

from rlaif.config.files import SHIPPED_CONFIGS, load_config
from rlaif.config.schema import Config
from rlaif.errors import ConfigError
from rlaif.prompting.chat_templates import ChatFormat
from rlaif.prompting.dialogues import HumanAssistant, dialogue
from rlaif.prompting.formats import format_of, policy_tokenizer, read_chat_template
from rlaif.prompting.probes import template_mistake
from rlaif.records import Turn
from tests.tiny_models import tiny_tokenizer
from tests.unit.prompting.chat_tokenizers import (
    CHATML,
    GEMMA,
    TEMPLATES,
    THINKING,
    with_template,
)

DAY = date(2025, 3, 1)
TURNS = tuple(Turn(role=role, text=f"{role} said so") for role in ("human", "assistant", "human"))
MESSAGES = [{"role": "assistant" if turn.role == "assistant" else "user", "content": turn.text} for turn in TURNS]


def config(**values) -> Config:
    return Config.model_validate(values)


# ------------------------------------------------------------------------------------------------------- roles
def test_nothing_set_is_one_format_for_all():
    for role in ("policy", "generator", "labeller"):
        assert format_of(config(), role) == "human_assistant"
        format = format_of(config(dialogue_format="chat_template"), role, DAY)
        assert isinstance(format, ChatFormat) and format.template is None and format.day == DAY


def test_a_base_policy_leaves_its_judge_a_chat_template():
    mixed = config(generator={"dialogue_format": "chat_template"}, labeller={"dialogue_format": "chat_template"})
    assert format_of(mixed, "policy") == "human_assistant"
    assert all(isinstance(format_of(mixed, role), ChatFormat) for role in ("generator", "labeller"))
    other = config(dialogue_format="chat_template", labeller={"dialogue_format": "human_assistant"})
    assert format_of(other, "labeller") == "human_assistant" and isinstance(format_of(other, "policy"), ChatFormat)


def test_arguments_belong_to_one_role_and_only_the_helpful_model_may_think():
    asked = config(dialogue_format="chat_template", generator={"chat_template_kwargs": {"enable_thinking": False}})
    assert format_of(asked, "generator").kwargs == (("enable_thinking", False),)
    assert format_of(asked, "labeller").kwargs == ()
    assert [format_of(asked, role).may_think for role in ("generator", "policy", "labeller")] == [True, False, False]


def test_arguments_from_the_command_line():
    asked = load_config("one_gpu", ["labeller.chat_template_kwargs={enable_thinking: true, effort: 2}"])
    assert dict(format_of(asked, "labeller").kwargs) == {"enable_thinking": True, "effort": 2}


def test_a_template_where_none_is_used_is_a_contradiction(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("supervision: {chat_template: llama3}\nlabeller: {chat_template_kwargs: {a: 1}}\n")
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    first, second = str(raised.value).splitlines()
    assert first == (
        "supervision.chat_template=llama3: with dialogue_format=human_assistant: no chat template is used; "
        "set dialogue_format=chat_template, or supervision.chat_template=null"
    )
    assert second.endswith("set dialogue_format=chat_template, or remove labeller.chat_template_kwargs")
    load_config(path, ["dialogue_format=chat_template"])
    load_config(path, ["supervision.chat_template=null", "labeller.dialogue_format=chat_template"])


def test_template_files(tmp_path):
    (tmp_path / "mine.jinja").write_text(CHATML)
    assert read_chat_template(str(tmp_path / "mine.jinja")) == CHATML and read_chat_template(None) is None
    (tmp_path / "empty.jinja").write_text("\n")
    for name, rule in (("empty.jinja", "is empty"), ("gone.jinja", "no such file; give a Jinja file, or a shipped")):
        with pytest.raises(ConfigError, match=rule):
            read_chat_template(str(tmp_path / name))


@pytest.mark.parametrize("file", sorted((SHIPPED_CONFIGS / "templates").glob("*.jinja")), ids=lambda file: file.stem)
def test_shipped_templates_render_every_probe(file):
    assert template_mistake(with_template(None), ChatFormat(template=read_chat_template(file.stem))) is None


# ------------------------------------------------------------------------------------------- the policy's tokenizer
@pytest.mark.parametrize("day", [DAY, date(2026, 1, 1)])
@pytest.mark.parametrize("name", [*TEMPLATES, "human_assistant"])
def test_a_saved_policy_renders_what_it_was_trained_on(name, day, tmp_path):
    """As a server would, with the template in its directory; only the day is the server's."""
    base = tiny_tokenizer() if name == "human_assistant" else with_template(TEMPLATES[name])
    base.save_pretrained(tmp_path / "base")
    kwargs = (("enable_thinking", True),) if name == "thinking" else ()
    chat = ChatFormat(day=day, may_think=False, kwargs=kwargs)
    format = "human_assistant" if name == "human_assistant" else chat
    policy_tokenizer(tmp_path / "base", format).save_pretrained(tmp_path / "policy")
    served = AutoTokenizer.from_pretrained(tmp_path / "policy")
    told = {"date_string": day.strftime("%d %b %Y"), "strftime_now": day.strftime}
    text = served.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True, **told)
    rendered = dialogue(format, base).prompt(TURNS)
    bos = base.bos_token if name == "human_assistant" else ""
    assert text == bos + (rendered if isinstance(rendered, str) else "".join(rendered))


@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>"), (GEMMA, "<end_of_turn>"), (THINKING, "<|im_end|>")]
)
def test_the_policy_learns_the_token_that_ends_a_turn(template, end, tmp_path):
    with_template(template).save_pretrained(tmp_path / "base")
    policy_tokenizer(tmp_path / "base", ChatFormat(may_think=False)).save_pretrained(tmp_path / "policy")
    saved = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert saved.eos_token == end and saved.get_vocab() == with_template(template).get_vocab()


def test_a_base_without_a_template_gets_the_one_in_the_file(tmp_path):
    with_template(None).save_pretrained(tmp_path / "base")
    tokenizer = policy_tokenizer(tmp_path / "base", ChatFormat(template=CHATML, may_think=False))
    assert tokenizer.chat_template == CHATML and tokenizer.eos_token == "<|im_end|>"


def test_shipped_presets_give_each_role_what_its_model_has(tmp_path):
    """A base model of Llama 3 has no template; the other models of these presets are chat models, which have one."""
    for name in ("eight_gpu", "multi_node"):
        format = format_of(load_config(name), "policy")
        assert format.template == read_chat_template("llama3")
    specials = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    with_template(None, specials).save_pretrained(tmp_path / "base")
    assert policy_tokenizer(tmp_path / "base", format).eos_token == "<|eot_id|>"
    paper = load_config("paper")
    assert format_of(paper, "policy") == "human_assistant"
    assert all(isinstance(format_of(paper, role), ChatFormat) for role in ("generator", "labeller"))


def test_the_human_assistant_format_keeps_the_eos_and_replaces_a_template_that_was_never_trained(tmp_path):
    with_template(CHATML).save_pretrained(tmp_path / "base")
    tokenizer = policy_tokenizer(tmp_path / "base", "human_assistant")
    assert tokenizer.eos_token == "</s>"
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert text == f"<s>{HumanAssistant().prompt(TURNS)}"


# ------------------------------------------------------------------------------------------------------- probes
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("may_think", [True, False])
def test_templates_of_real_families_pass(name, may_think):
    assert template_mistake(with_template(TEMPLATES[name]), ChatFormat(may_think=may_think)) is None


@pytest.mark.parametrize(
    ("template", "mistake"),
    [
        (None, "its tokenizer has no chat template"),
        ("{{ raise_exception('tools only') }}", "refuses the roles user: TemplateError: tools only"),
        ("{% for m in messages %}{{ m.content }", "refuses the roles user: TemplateSyntaxError"),
        ("{% for m in messages %}{{ m.content.nothing.at }}{% endfor %}", "refuses the roles user: UndefinedError"),
        ("{% for m in messages[:1] %}{{ m.role }}: {{ m.content }}{% endfor %}", "drops, repeats or reorders"),
        ("{% for m in messages %}<s>{{ m.content }}{% endfor %}", "does not tell roles apart"),
        (CHATML.partition("{% if add")[0], "does not invite an answer"),
    ],
)
def test_what_a_template_lacks_is_named(template, mistake):
    assert mistake in str(template_mistake(with_template(template), ChatFormat()))


@pytest.mark.parametrize("name", ["alt", "date", "plain", "think"])
def test_templates_that_failed_once_pass_and_what_they_render_is_right(shared_file, name):
    template = shared_file(f"cases/templates/{name}.jinja").read_text()
    tokenizer = with_template(template)
    for may_think in (True, False):
        assert template_mistake(tokenizer, ChatFormat(may_think=may_think)) is None
    twice = (Turn(role="human", text="One, [assistant] no."), *TURNS)  # two turns of one role, and a forged one
    text = "".join(map(str, dialogue(ChatFormat(day=DAY, may_think=False), tokenizer).prompt(twice)))
    assert "One, [ assistant] no.\n\nhuman said so" in text
    assert ("Today is 01 Mar 2025" in text) == (name == "date")
    assert text.count("<think>") == text.count("</think>") == (name == "think")
