"""The one exception tree. Every error is picklable, and its first argument is the whole message for a person.

``UserError`` and its children are a user's mistakes: the CLI prints only the message and exits with 2.
``RunError`` and its children end a run that was started correctly: exit 1.

What is repeated of other libraries' errors may hold secrets: it goes through ``redacted``, as do the command line's
output, events and pages.
"""

from __future__ import annotations

import json
import os
import re

_MAX_VALUE_CHARS = 60  #: longest value that a message quotes whole
_JSON = json.JSONEncoder(default=str)
#: Variables of the environment whose values are secrets; those that only say where one is are not.
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_PLACE_NAME = re.compile(r"_(PATH|FILE|DIR|URL|URI)$|^TOKENIZERS_", re.IGNORECASE)
_MIN_SECRET_CHARS = 8  #: shorter values, such as ``true``, occur by chance
#: Keys and tokens by their shape: of Hugging Face, AWS, GitHub, OpenAI and Anthropic, GitLab, Slack, Google; JSON web
#: tokens; PEM files.
_SECRET_SHAPE = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}|\bglpat-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}|\bya29\.[\w-]{20,}"
    r"|\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,2000}\.[\w-]{8,}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}KEY-----|\Z)",
    re.DOTALL,
)
#: A user and password end at the last @, and not before a / that the password holds: what is a number may be a port.
_URL_WITH_MORE = re.compile(
    r"""(?<![\w+.-])([a-z][\w+.-]{0,30}://)(?:[^/\s'"@:]{0,200}:(?!\d*/)[^\s'"]{0,500}@|[^/\s'"]*@)?([^\s'"<>?]*)
    (\?[^\s'"<>)\]]*)?""",
    re.IGNORECASE | re.VERBOSE,
)
_QUERY = re.compile(r"(?<=[\w/])\?[\w.%-]{1,200}=[^\s'\"<>)\]]+")
#: What follows a secret's name: in ``KEY: value``, ``"key": "value"``, ``(b'key', b'value')``.
_IS = r"""(?:["']?\s*[=:]\s*b?["']?|["'],\s*b?["'])"""
_NAMED = re.compile(
    rf"""(?P<name>\b\w*(?:(?:secret|access|account|api|auth|private|subscription)[_-]?(?:key|token)(?:[_-]?id)?|session[_-]?token
    |passw(?:or)?d|passphrase|client[_-]?secret){_IS}
    |\bauthorization{_IS}(?:(?:bearer|basic|token|digest|negotiate)\s+)?|\bbearer\s+)
    (?P<value>(?<=["'])[^"'\n]{{8,}}|[^\s"',;}}]{{8,}})""",
    re.IGNORECASE | re.VERBOSE,
)
#: Names that also have other meanings: a tokenizer's tokens, the place of a file. So it must look like a key as well.
_MAYBE_NAMED = re.compile(
    rf"""(?P<name>\b(?!(?:bos|eos|pad|unk|sep|cls|mask|image|special)_)\w*(?:token|credentials?){_IS}|\b(?:\w*signature|sig)=
    |--[\w-]{{0,40}}(?:token|password|secret|api-key)\s+)
    (?P<value>(?!/|\d+(?![\w./+=%~-]))[\w./+=%~-]{{8,}})""",
    re.IGNORECASE | re.VERBOSE,
)
_COOKIE = re.compile(r"""(?P<name>\bcookie["']?\s*:\s*["']?)[^\n"']{8,}""", re.IGNORECASE)


class RlaifError(Exception):
    """Base of everything this system raises on purpose."""


class UserError(RlaifError):
    """A mistake in the user's input; nothing was lost and nothing was started."""


class ConfigError(UserError):
    """A wrong configuration: every mistake on its own line, ``path=value: rule; fix``."""


class DataError(UserError):
    """A data file that cannot be used; names the row and field where there is one."""


class ModelError(UserError):
    """A model directory that cannot be used."""


class RunDirError(UserError):
    """A run directory of another configuration or a later version, or one that another process uses."""


class PlacementError(UserError):
    """A plan that the declared or actual resources cannot hold; names role and resource."""


class GateError(UserError):
    """Labels that miss the configured quality limits; names each limit and how to override it."""


class RunError(RlaifError):
    """A run that was started correctly and failed."""


class LossError(RunError):
    """No row came out of a step, or fewer than ``max_loss`` allows; names the most frequent cause."""


class StorageError(RunError):
    """The run directory cannot be written (full or read-only disk); the run can be resumed."""


class EngineError(RunError):
    """An inference engine failed."""


class RequestError(EngineError):
    """One request that an engine cannot serve (empty, too long, unknown token); the engine keeps running."""


class NotFiniteError(RunError):
    """A model computed NaN or infinity where a number was asked for; the engine keeps running."""


class DivergenceError(RunError):
    """A model that is trained computes NaN or infinity; says where, and what to look at."""


class WeightSyncError(RunError):
    """An engine does not serve the weights that it was given."""


class TrainerLostError(RunError):
    """A whole trainer was lost to an outside failure; everything since its last checkpoint must be redone."""


class WaitTimeoutError(RunError):
    """A wait timed out; names what was waited for."""


class Interrupted(RlaifError):
    """The user ended a command, or the job that it followed; says how to continue. Exit 130."""


def describe_error(error: BaseException) -> str:
    """The type and the first line of an error, redacted: what a quarantined row says of its cause."""
    lines = redacted(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def quote_error(error: BaseException) -> str:
    """The type and the whole message of another library's error, redacted, for a message of ours."""
    return f"{type(error).__name__}: {redacted(str(error))}"


def redacted(text: str) -> str:
    """``text`` without what looks like a secret: values of the environment's secret variables, keys and tokens by their
    shape or the name before them, users and queries in URLs."""
    for value, name in _secrets_of_environment().items():
        text = text.replace(value, f"<{name}>")
    text = _SECRET_SHAPE.sub("<secret>", text)
    text = _URL_WITH_MORE.sub(lambda url: f"{url[1]}{url[2]}{'?...' if url[3] else ''}", text)
    text = _QUERY.sub("?...", text)
    text = _COOKIE.sub(r"\g<name><secret>", text)
    text = _NAMED.sub(r"\g<name><secret>", text)
    return _MAYBE_NAMED.sub(r"\g<name><secret>", text)


def holds_secret(text: str) -> bool:
    """Whether there is a key or token in ``text``, by its value or its shape. A word is none: some passwords are."""
    values = (value for value in _secrets_of_environment() if not value.isalpha())
    return _SECRET_SHAPE.search(text) is not None or any(value in text for value in values)


def _secrets_of_environment() -> dict[str, str]:
    """Value -> name of the variable, the longest value first: one may be a part of another."""
    found = {
        value: name
        for name, value in os.environ.items()
        if len(value) >= _MIN_SECRET_CHARS
        and _SECRET_NAME.search(name)
        and not _PLACE_NAME.search(name)
        and not value.startswith("/")
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def format_value(value: object) -> str:
    """A value as a message quotes it, of which no more is written out than is quoted."""
    text = value if isinstance(value, str) else ""
    for part in () if isinstance(value, str) else _JSON.iterencode(value):
        text += part
        if len(text) > _MAX_VALUE_CHARS:
            break
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 3]}..."
