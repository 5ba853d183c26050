"""``rlaif constitution`` as a user runs it: output and exit code."""

import json
import subprocess
import sys

import pytest
from transformers import LlamaForCausalLM

from actors.cli.__main__ import main
from rlaif.constitution.principles import SHIPPED_CONSTITUTIONS, load_constitution
from tests.tiny_models import saved, tiny_config

TWO = """
name: two
version: "1"
principles:
  - {id: safe, category: harm_avoidance, source: s, comparison: "Which answer is less harmful?"}
  - {id: useful, category: helpfulness, source: s, comparison: "Which answer is more useful?"}
"""


@pytest.fixture
def rlaif(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main(["constitution", *map(str, arguments)])
        return leaving.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def two(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    return path


def test_lint_says_which_rules_were_not_judged(rlaif):
    code, out, _ = rlaif("lint", "sixteen_principles")
    assert code == 0
    assert "C101, C102, C103, C104, C105" in out and "--model" in out
    assert out.endswith("0 errors, 0 warnings\n")


def test_lint_prints_one_line_a_finding_and_errors_exit_with_2(rlaif, two):
    code, out, _ = rlaif("lint", two)
    assert code == 0 and f"C008 warning {two}: principles: none has" in out
    two.write_text(TWO.replace("harm_avoidance", "harm").replace("source: s,", "source: s, weight: 0,"))
    code, out, err = rlaif("lint", two)
    assert (code, err) == (2, "")
    assert f"C001 error {two}: safe.category: " in out
    assert f"C005 error {two}: useful.weight: " in out
    assert out.endswith("4 errors, 2 warnings\n")


def test_a_model_without_an_answer_judges_nothing(rlaif, two, tmp_path):
    config = tiny_config(tied=True)
    config.max_position_embeddings = 1024
    code, out, _ = rlaif("lint", two, "--model", saved(LlamaForCausalLM(config), tmp_path / "model"))
    assert code == 0
    assert out.count("not judged") == 7 and "letters hold" in out


def test_constitutions_of_others_are_imported(rlaif, tmp_path):
    (tmp_path / "c.csv").write_text("statement,agrees\nThe AI should respect privacy,12\n")
    (tmp_path / "c.md").write_text("- Be kind.\n")
    out = tmp_path / "o.yaml"
    code, said, _ = rlaif("import", tmp_path / "c.csv", tmp_path / "c.md", "--out", out)
    assert code == 0 and f"{out}: 2 principles" in said
    assert [p.id for p in load_constitution(str(out)).principles] == ["the_ai_should_respect_privacy", "be_kind"]


def test_few_shot_transcripts_are_no_principles(rlaif, tmp_path):
    file, out = tmp_path / "few.json", tmp_path / "o.yaml"
    file.write_text(json.dumps(["\n\nHuman: hi\n\nAssistant: ho\n\nCritiqueRequest: say what is harmful"] * 5))
    code, _, err = rlaif("import", file, "--out", out)
    assert code == 2 and f"{file}: row 1: is a few-shot transcript, not a principle" in err and not out.exists()


def test_mistakes_are_one_message(rlaif, two, tmp_path):
    for arguments, told in (
        (("lint", "none_such"), "nine_points"),
        (("lint", two, "--model", "./nowhere"), "/nowhere: no such directory"),
        (("diff", two, "none_such"), "none_such"),
        (("import", tmp_path / "none.json", "--out", tmp_path / "o.yaml"), "none.json"),
    ):
        code, _, err = rlaif(*arguments)
        assert code == 2 and told in err.replace("\n", "") and "Traceback" not in err


def test_diff_names_fields_and_labels(rlaif, two, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(
        TWO.replace("less harmful", "safer").replace("useful,", "handy,") + "category_weights: {helpfulness: 2}\n"
    )
    code, out, _ = rlaif("diff", two, other)
    assert code == 0
    assert "changed safe.comparison\n  - Which answer is less harmful?\n  + Which answer is safer?\n" in out
    assert "added handy" in out and "removed useful" in out and "category_weights.helpfulness: 1 -> 2" in out
    assert "those that used safe, useful\n" in out and "those that now draw handy\n" in out
    assert rlaif("diff", two, two)[1] == "Nothing changed; no label is outdated.\n"


def test_import_makes_one_file_that_loads(rlaif, tmp_path):
    requests, comparisons, out = tmp_path / "r.json", tmp_path / "c.json", tmp_path / "made.yaml"
    requests.write_text(json.dumps({"kind": {"prompt": ["What is unkind?"], "edit_request": "Make it kind."}}))
    comparisons.write_text(json.dumps(["Which answer is kinder?"]))
    assert rlaif("import", requests, comparisons, "--out", out)[0] == 0
    made = load_constitution(str(out))
    assert [p.id for p in made.principles] == ["kind", "comparison_1"]
    code, _, err = rlaif("import", requests, "--out", out)
    assert code == 2 and "exists already" in err.replace("\n", "")


def test_lint_by_words_and_diff_need_no_heavy_library():
    file = str(SHIPPED_CONSTITUTIONS / "nine_points.yaml")
    code = (
        "import sys\nfrom actors.cli.constitution import diff_command, lint_command\n"
        f"lint_command({file!r}); diff_command({file!r}, 'helpful_honest')\n"
        "print([name for name in ('torch', 'transformers', 'ray', 'vllm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
