"""Code on the pages is right: YAML is a constitution or configuration, Python parses, the README's example runs."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.errors import UserError
from tests.unit.docs.pages import ROOT, Piece, blocks, pieces
from tests.unit.docs.shell import shipped

LANGUAGES = {"", "text", "python", "yaml"}


def python_problem(text: str) -> str | None:
    """What is wrong with Python on a page: it must parse, and import from our packages what they define."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("rlaif", "actors"):
            for name in node.names:
                if name.name not in defined(node.module or ""):
                    return f"{node.module} defines no {name.name}"
    return None


def defined(module: str) -> set[str]:
    """Names at the top of a module of ours, read without importing it."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return set()
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def yaml_problem(text: str, folder: Path) -> str | None:
    """What is wrong with YAML on a page: it is a constitution, or a configuration."""
    try:
        tree = yaml.safe_load(text)
        if "principles" in tree:
            (folder / "constitution.yaml").write_text(text)
            load_constitution(str(folder / "constitution.yaml"))
        else:
            Config.model_validate({key: value for key, value in tree.items() if key != "extends"})
    except (yaml.YAMLError, ValueError, UserError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("block", pieces(blocks), ids=str)
def test_a_block_is_right(block: Piece, tmp_path):
    assert block.language in LANGUAGES, f"{block.place}: nothing checks {block.language}"
    wrong = None
    if block.language == "python":
        wrong = python_problem(block.text)
    elif block.language == "yaml":
        wrong = yaml_problem(block.text, tmp_path)
    assert wrong is None, f"{block.place}: {wrong}"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("def f(:", "line 1"),
        ("from rlaif.records import Nothing", "defines no Nothing"),
        ("from rlaif.nowhere import Comparison", "defines no Comparison"),
    ],
)
def test_wrong_python_is_seen(text, cause):
    assert cause in (python_problem(text) or "")


@pytest.mark.parametrize("text", ["a: [", "labelling: {principle: 4}", "name: x\nprinciples: [{id: one}]"])
def test_wrong_yaml_is_seen(text, tmp_path):
    assert yaml_problem(text, tmp_path)


def test_a_block_that_is_never_closed_is_seen():
    with pytest.raises(ValueError, match=r"page\.md:2: .* never closed"):
        list(blocks("page.md", "```python\nx = 1\n"))


def text_block(page: str, first: str) -> str:
    """The block of ``page`` whose first line begins with ``first``."""
    found = blocks(page, (ROOT / page).read_text(encoding="utf-8"))
    return next(block.text for block in found if block.text.startswith(first))


def tree_of(text: str) -> dict[str, set[str]]:
    """Top folder -> the folders named below it, in a drawn tree; comments follow three spaces."""
    tree: dict[str, set[str]] = {}
    for line in text.splitlines():
        names = re.findall(r"(\S+)/(?:\s|$)", line.strip().split("   ")[0])
        if line.startswith(" "):
            tree[list(tree)[-1]] |= set(names)
        else:
            tree |= {name: set() for name in names}
    return tree


def packages(folder: str) -> set[str]:
    return {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}


def test_the_tree_of_the_readme_is_the_tree():
    tree = tree_of(text_block("README.md", "rlaif/\n"))
    assert all((ROOT / name).is_dir() for name in tree)
    for folder in ("rlaif", "actors"):
        assert tree[folder] == packages(folder)


def test_a_tree_is_read_as_it_is_drawn():
    tree = tree_of("a/\n  b/  c/          what is in b/ and c/\nd/  e/")
    assert tree == {"a": {"b", "c"}, "d": set(), "e": set()}


def test_a_run_directory_holds_what_the_guide_says():
    listing = text_block("docs/guide/results.md", "config.yaml")
    named = [name for line in listing.splitlines() for name in line.split("   ")[0].split()]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rlaif").rglob("*.py")))
    sources += (ROOT / "actors/cluster/announcement.py").read_text(encoding="utf-8")
    assert len(named) > 15
    missing = [name for name in named if name.rstrip("/").rpartition("/")[2] not in sources]
    assert not missing


def test_every_shipped_configuration_is_in_the_guide():
    text = (ROOT / "docs/guide/your_own.md").read_text(encoding="utf-8")
    table = text.partition("| shipped configuration |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    known = shipped("quickstart")
    assert known
    assert sorted(named) == sorted(path.stem for path in known.parent.glob("*.yaml"))


def test_the_example_of_the_readme_labels_three_pairs(tmp_path, monkeypatch, capsys):
    (example,) = (
        block.text
        for block in blocks("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))
        if block.language == "python"
    )
    scripted = {  # no model here: the engine that checks what it is asked, over bytes, which have no chat template
        '"path/to/model", PoolSettings(engine="hf")': 'None, PoolSettings(engine="scripted", max_length=4096)',
        'dialogue_format="chat_template"': 'dialogue_format="human_assistant"',
    }
    for shown, used in scripted.items():
        assert shown in example
        example = example.replace(shown, used)
    pairs = [{"prompt": f"Question {i}?", "answer_1": f"yes {i}", "answer_2": f"no {i}"} for i in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all(line.split()[1] == "ok" and 0 < float(line.split()[2]) < 1 for line in lines)
