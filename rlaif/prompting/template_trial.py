"""Renders dialogues with a chat template in a process of its own, which ends when that takes too long or too much.

Run as a script by ``probes``, with a request in JSON on its standard input. It imports nothing of this package, so that
it works wherever the package is. What a template says is of no interest here: only whether it ends.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

TOO_MUCH = 3  #: the exit status; a process that runs into its limits may also be killed


def render_all() -> None:
    """Ends with TOO_MUCH, or is killed, when a rendering is over the limits in the request."""
    request = json.load(sys.stdin)
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit(request["max_s"], request["max_bytes"])
    moment = datetime.fromisoformat(request["day"])
    variables = {**request["variables"], "strftime_now": moment.strftime}
    for messages in request["dialogues"]:
        for invites in (False, True):
            settings = {"add_generation_prompt": invites, "chat_template": request["template"], **variables}
            if _size(render_jinja_template, messages, settings) > request["max_chars"]:
                sys.exit(TOO_MUCH)


def _size(render: Any, messages: list[Mapping[str, str]], settings: Mapping[str, Any]) -> int:
    try:
        (text,), _ = render([messages], **settings)
        return len(text)
    except MemoryError:
        sys.exit(TOO_MUCH)
    except Exception:  # whoever renders it next meets it as well, and says so
        return 0


def _limit(max_s: int, max_bytes: int) -> None:
    """From now on. The kernel kills a process for its time, and refuses it memory."""
    used_s = int(time.process_time()) + 1
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {resource.RLIMIT_CPU: used_s + max_s, resource.RLIMIT_AS: used_bytes + max_bytes, resource.RLIMIT_CORE: 0}
    for kind, limit in limits.items():
        _, most = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


if __name__ == "__main__":
    render_all()
