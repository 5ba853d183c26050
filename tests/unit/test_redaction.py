"""Secrets in texts that are repeated: none is left, and what is no secret stays."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import RunError, describe_error, holds_secret, quote_error, redacted
from rlaif.evaluation.audit.sample import Pair
from rlaif.evaluation.audit.sheet import reading_page
from rlaif.storage.metrics import EventLog

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SHAPES = [
    "hf_" + "aB3" * 12,
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1_B2" * 6,
    "sk-ant-api03-" + "aB3_" * 10,
    "glpat-" + "aB3-" * 6,
    "xoxb-1234567890-abcdefghij",
    "AIza" + "aB3-_" * 7,
    "ya29." + "aB3" * 10,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAK\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIBOgIBAAJBAK",
]
FORMS = [
    f"aws_secret_access_key = {KEY}",
    f"AWS_SECRET_ACCESS_KEY={KEY}",
    f'{{"secret_key": "{KEY}", "x": 1}}',
    f"api-key: {KEY}",
    f"password={KEY}",
    f"Authorization: Bearer {KEY}",
    f"authorization='Basic {KEY}'",
    f"session_token={KEY}",
    f"client_secret={KEY}",
    f"https://user:{KEY.replace('/', '.')}@host/a.jsonl",
    f"https://host/a.jsonl?X-Amz-Signature={KEY}",
    f"https://host/a.jsonl?{KEY.replace('/', '.')}",
    f"s3://{KEY.replace('/', '.')}@bucket/a",
    *(f"https://{user}@host/a" for user in (f"user:p@{KEY}", f"user:{KEY}", f"u:a?b#{KEY}", f":{KEY}")),
    *(f"s3://KEY:{KEY}@bucket/a@b/{part}" for part in ("", "c@d", "?x=y@z")),
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={KEY}==;EndpointSuffix=core.windows.net",
    f"SharedAccessSignature={KEY}",
    f"HF_TOKEN: {KEY}",
    f"token={KEY}",
    f"'token': '{KEY}'",
    f"--hf-token {KEY}",
    f"pass_phrase=1 passphrase: {KEY}",
    f"password: 'correct horse {KEY}'",
    f"MY_CREDENTIALS={KEY}",
    f"Cookie: theme=dark; session={KEY}",
    f"Set-Cookie: session={KEY}; Path=/",
    f"X-Auth-Token: {KEY}",
    f"Ocp-Apim-Subscription-Key: {KEY}",
    f"Authorization: Token {KEY}",
    f"Authorization: AWS4-HMAC-SHA256 Credential=a/b/s3, SignedHeaders=host, Signature={KEY}",
    f"[(b'x-api-key', b'{KEY}'), (b'authorization', b'Bearer {KEY}')]",
    f"Max retries exceeded with url: /a/b?token={KEY}&x=1 (Caused by)",
]
HARMLESS = [
    "sampling.max_tokens=48",
    "max_tokens: 48000000",
    "<|im_end|> is a special token: 128009128",
    "data.red_team=/nowhere.jsonl: no such file",
    "a mask of a disk is a task-of-desks, sk-learn, hf_hub_download",
    "Why? x=1 and y=2",
    "https://host:8265/jobs/a#b",
    "s3://bucket/prefix/*.jsonl",
    "tokenizer=chat_template, key=value",
    "runs/a@b/c",
    "https://host/@scope/package@1.2",
    "http://HEAD:8265/a@b",
    "mail me@example.org, or see https://host/a",
    "eos_token: endoftext123",
    "the special token: '<|im_end|>'",
    "HF_TOKEN_PATH=/home/me/.token, GOOGLE_APPLICATION_CREDENTIALS=/home/me/key.json",
    "signature: (first, second)",
    "cookie: none",
]


@pytest.mark.parametrize("secret", SHAPES)
def test_keys_and_tokens_are_known_by_their_shape(secret: str) -> None:
    text = f"failed (token {secret}), see the log"
    assert redacted(text) == "failed (token <secret>), see the log" or secret.startswith("-----BEGIN PRIVATE")
    assert secret not in redacted(text)
    assert holds_secret(text)


@pytest.mark.parametrize("text", FORMS)
def test_secrets_are_known_by_what_is_before_them(text: str) -> None:
    assert KEY not in redacted(text) and KEY.replace("/", ".") not in redacted(text)
    assert "K7MDENG" not in redacted(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text
    assert not holds_secret(text)


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "DB_PASSWORD", "RAY_AUTH_TOKEN", "MY_CREDENTIALS"]
)
def test_values_of_secret_variables_are_known_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "correct horse.battery$")
    assert redacted("no (correct horse.battery$)!") == f"no (<{name}>)!"
    assert holds_secret("x: correct horse.battery$")


def test_a_password_that_is_a_word_is_not_looked_for_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "password")
    assert not holds_secret("def password(): ...")
    assert redacted("no password") == "no <PGPASSWORD>"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false or true"),
        ("RAY_AUTH_TOKEN_PATH", "somewhere/auth_token"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json"),
        ("HF_TOKEN", "short"),
        ("RAY_AUTH_MODE", "token and more"),
    ],
)
def test_variables_that_are_no_secret_are_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert redacted(f"is {value}") == f"is {value}"


@given(st.text(), st.sampled_from(SHAPES), st.text())
def test_a_token_between_any_texts_is_gone(before: str, secret: str, after: str) -> None:
    assert secret not in redacted(f"{before} {secret} {after}")


@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


def test_causes_and_quoted_errors_are_redacted() -> None:
    error = ValueError(f"401 for {SHAPES[0]}\nmore")
    assert describe_error(error) == "ValueError: 401 for <secret>"
    assert quote_error(error) == "ValueError: 401 for <secret>\nmore"


def test_events_are_redacted(tmp_path) -> None:
    EventLog(tmp_path / "events.jsonl").write("failed", cause=f"token {SHAPES[0]}", num=3)
    event = json.loads((tmp_path / "events.jsonl").read_text())
    assert (event["cause"], event["num"]) == ("token <secret>", 3)


def test_pages_are_redacted() -> None:
    pair = Pair(
        id="pair-1",
        label_id="a:1",
        stratum="",
        prob=0.5,
        answer_1="left",
        conversation=(),
        left=f"It is {SHAPES[0]}.",
        right="<b>",
    )
    page = reading_page([pair])
    assert "It is &lt;secret&gt;." in page and SHAPES[0] not in page
    assert "&lt;b&gt;" in page


def test_the_command_line_prints_no_secret(capsys, monkeypatch) -> None:
    from actors.cli.console import PlainConsole, take_over

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr("actors.cli.console.errors", PlainConsole(stderr=True, markup=False, soft_wrap=True))
    take_over([])
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.LogRecord("rlaif", logging.WARNING, "", 0, "token %s", (SHAPES[0],), None))
    sys.excepthook(RunError, RunError(f"token {SHAPES[1]}"), None)
    PlainConsole().print(f"token {SHAPES[2]}")
    shown = "".join(capsys.readouterr())
    assert shown.count("token <secret>") == 3
    assert not any(secret in shown for secret in SHAPES)
