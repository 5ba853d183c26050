"""Every command that a page shows exists, has its options, and names configurations and keys that exist."""

import pytest

from tests.unit.docs.pages import Piece, commands, pieces, spans
from tests.unit.docs.shell import problem

OURS = ("rlaif ", "make ", "python -m ", ".venv/bin/", "uv pip ", "pip install ")


@pytest.mark.parametrize("shown", pieces(commands), ids=str)
def test_a_command_in_a_block_would_run(shown: Piece):
    wrong = problem(shown.text)
    assert wrong is None, f"{shown.place}: {wrong}"


@pytest.mark.parametrize("shown", [span for span in pieces(spans) if span.text.startswith(OURS)], ids=str)
def test_a_command_in_a_sentence_exists(shown: Piece):
    wrong = problem(shown.text, whole=False)
    assert wrong is None, f"{shown.place}: {wrong}"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("rlaif fly CONFIG", "no command fly"),
        ("rlaif run", "Missing"),
        ("rlaif run CONFIG --fast", "o such option"),
        ("rlaif run configs/nowhere.yaml", "no configs/nowhere.yaml"),
        ("rlaif plan nowhere", "no configuration nowhere"),
        ("rlaif run quickstart labelling.principle=4", "unknown key"),
        ("rlaif run quickstart labelling.principles=many", "must be a whole number"),
        ("rlaif run quickstart reinforcement.algorithm=rloo", "groups hold at least 2"),
        ("rlaif run quickstart labelling.examples=configs/examples/none.yaml", "no configs/examples/none.yaml"),
        ("rlaif scale RUN_DIR labeller many", "valid integer"),
        ("rlaif constitution fix FILE", "no command fix"),
        ("rlaif run 'quickstart", "shell does not understand"),
        ("python -m benchmarks.nothing", "no module"),
        ("python -m benchmarks.demo --jason FILE", "no option --jason"),
        ("make coffee", "no target coffee"),
        ("pip install -e '.[moon]'", "no extra moon"),
        ("kubectl apply -f cluster/none.yaml", "no cluster/none.yaml"),
        ("frobnicate now", "unknown command"),
    ],
)
def test_a_wrong_command_is_seen(line, cause):
    assert cause in (problem(line) or "")


@pytest.mark.parametrize(
    "line",
    [
        "rlaif run CONFIG reinforcement.max_staleness=1   # a comment, what's more",
        "rlaif scale RUN_DIR labeller N",
        "python -m benchmarks.NAME --json FILE",
        "make demo",
    ],
)
def test_a_right_command_passes(line):
    assert problem(line) is None


def test_running_text_may_name_a_command_without_its_arguments():
    assert problem("rlaif run", whole=False) is None
    assert "no command fly" in (problem("rlaif fly", whole=False) or "")
