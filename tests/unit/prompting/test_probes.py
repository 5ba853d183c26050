"""A chat template is a program from anywhere: one that asks for too much is refused before it is rendered here."""

from __future__ import annotations

import pytest

from rlaif.prompting import probes
from rlaif.prompting.chat_templates import DEFAULT_FORMAT, ChatFormat
from rlaif.prompting.probes import template_mistake
from tests.unit.prompting.chat_tokenizers import CHATML, DATED, GEMMA, with_template

LOOPS = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
LETTERS = "{% set a = 'x' * 100000 %}{% for i in range(100000) %}{{ a }}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 2000000000 }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'a' | center(3000000000) }}",
        "{{ 'a' * 300000 }}",
        LETTERS,
        LOOPS,
        "{% if messages | length > 3 %}" + LOOPS + "{% endif %}" + CHATML,
    ],
)
def test_a_template_that_takes_too_long_or_too_much_is_refused(template, monkeypatch):
    monkeypatch.setattr(probes, "MAX_TRIAL_S", 1)
    assert "needs more than 1 s, 512 MiB" in template_mistake(with_template(template), DEFAULT_FORMAT)
    assert "needs more than 1 s" in template_mistake(with_template(CHATML), ChatFormat(template=template))


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
        ("{% if 1 %}" * 3000 + "x" + "{% endif %}" * 3000, "RecursionError"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "RecursionError"),
        ("{{ '\\ud800' }}" + CHATML, "UnicodeEncodeError"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "TypeError"),
        ("{{ raise_exception('a' * 5000) }}", "TemplateError"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused_in_a_line(template, cause):
    mistake = template_mistake(with_template(template), DEFAULT_FORMAT)
    assert mistake is not None and f"refuses the roles user: {cause}" in mistake and len(mistake) < 500


@pytest.mark.parametrize("template", [CHATML, DATED, GEMMA])
def test_templates_of_public_models_pass(template):
    assert template_mistake(with_template(template), DEFAULT_FORMAT) is None


@pytest.mark.parametrize("template", [5, {"a": "b"}])
def test_what_is_no_template_is_refused(template):
    tokenizer = with_template(CHATML)
    tokenizer.chat_template = template
    assert template_mistake(tokenizer, DEFAULT_FORMAT)
