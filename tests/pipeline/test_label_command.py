"""``rlaif label``: only labels, for a user's own pairs; with the scripted judge, in one process."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file, save_file

from actors.cli.__main__ import main
from rlaif.constitution.principles import load_constitution

HUMAN = "\n\nHuman: How do I {0}?\n\nAssistant:"
NUM_GOOD = 40


def pair(number: int) -> dict:
    prompt = HUMAN.format(f"do thing {number}")
    return {"chosen": f"{prompt} Ask first, {number}.", "rejected": f"{prompt} Just do it, {number}."}


BAD = [
    {"chosen": HUMAN.format("x") + " yes", "rejected": HUMAN.format("y") + " no"},
    {"chosen": HUMAN.format("x") + " yes", "rejected": HUMAN.format("x")},
    {"chosen": HUMAN.format("x") + " yes", "rejected": HUMAN.format("x") + " no", "answer_1": "a", "answer_2": "b"},
    {"text": "neither shape"},
]
OTHER_SHAPES = [
    {"prompt": "Plain?", "answer_1": "one", "answer_2": "two"},
    {"prompt": "Same?", "answer_1": "one", "answer_2": "one", "gold": 0.5},
    {
        "prompt": [{"role": "user", "content": "TRL?"}],
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    },
    {"chosen": HUMAN.format("x") + " wait\n\nAssistant: yes", "rejected": HUMAN.format("x") + " wait\n\nAssistant: no"},
]


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    pairs = tmp_path / "pairs.jsonl"
    rows = [*map(pair, range(NUM_GOOD)), *BAD, *OTHER_SHAPES]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    constitution = tmp_path / "constitution.yaml"
    tree = json.loads(load_constitution("nine_points").model_dump_json(exclude_none=True))
    constitution.write_text(yaml.safe_dump(tree))
    config = tmp_path / "config.yaml"
    config.write_text("labeller: {engine: scripted}\nlabelling: {aggregation: logit_mean}\n")
    return {"pairs": str(pairs), "constitution": str(constitution), "config": str(config), "out": str(tmp_path / "out")}


def label(files: dict[str, str], *overrides: str, tiny_model: str) -> int:
    command = ["label", files["pairs"], f"constitution={files['constitution']}", *overrides]
    command += ["--out", files["out"], "--config", files["config"], "--model", tiny_model, "--in-process"]
    with pytest.raises(SystemExit) as left:
        main(command)
    return left.value.code or 0


def labels(files: dict[str, str]) -> dict[str, dict]:
    table = pq.read_table(Path(files["out"]) / "preferences" / "preferences.parquet")
    return {row["id"]: row for row in table.to_pylist()}


def edited(files: dict[str, str], edit) -> None:
    path = Path(files["constitution"])
    tree = yaml.safe_load(path.read_text())
    edit(tree["principles"])
    path.write_text(yaml.safe_dump(tree))


def test_every_row_is_labelled_or_quarantined_by_name(files, tiny_world):
    assert label(files, tiny_model=tiny_world["feedback"]) == 0
    made, out = labels(files), Path(files["out"])
    assert Counter(row["status"] for row in made.values()) == {"ok": NUM_GOOD + 3, "tie": 1}
    assert {row["gold"] for row in made.values()} == {1.0, 0.5, None}
    causes = [json.loads(line)["cause"] for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert len(causes) == len(BAD)
    for cause, word in zip(causes, ("differ", "empty", "side by side", "no pair"), strict=True):
        assert word in cause
    rows = json.loads((out / "manifest.json").read_text())["rows"]
    assert rows["pairs"] == {"state": "done", "rows_in": 48, "rows_out": 44, "quarantined": 4}
    assert rows["preferences"]["rows_out"] == 44
    quality = json.loads((out / "label_quality.json").read_text())
    assert quality["overall"]["gold_accuracy"]["num"] == NUM_GOOD + 2


@pytest.mark.parametrize(
    ("out", "pairs"), [("2024-01-02", "my run #3.jsonl"), ("out #2 [/b]", "Run: [red] final.jsonl")]
)
def test_files_may_have_any_name(files, tiny_world, tmp_path, monkeypatch, capsys, out, pairs):
    monkeypatch.chdir(tmp_path)
    Path(files["pairs"]).rename(pairs)
    (tmp_path / "@my #model").symlink_to(tiny_world["feedback"])
    assert label({**files, "out": out, "pairs": pairs}, tiny_model="./@my #model") == 0
    assert {row["source_file"] for row in labels({"out": str(tmp_path / out)}).values()} == {pairs}
    assert f"labels: {out}/preferences/preferences.parquet" in capsys.readouterr().out


def test_running_again_does_nothing(files, tiny_world):
    label(files, tiny_model=tiny_world["feedback"])
    before = labels(files)
    label(files, tiny_model=tiny_world["feedback"])
    assert labels(files) == before


def test_another_file_into_the_same_directory_is_refused(files, tiny_world, capsys):
    label(files, tiny_model=tiny_world["feedback"])
    other = Path(files["pairs"]).with_name("other.jsonl")
    other.write_text(json.dumps(pair(0)) + "\n")
    assert label({**files, "pairs": str(other)}, tiny_model=tiny_world["feedback"]) == 2
    assert "data.comparisons" in capsys.readouterr().err


def test_only_labels_by_a_principle_that_changed_are_made_again(files, tiny_world):
    label(files, tiny_model=tiny_world["feedback"])
    before = labels(files)
    used = Counter(j["principle_id"] for row in before.values() for j in row["judgements"])
    (changed, _), *_ = used.most_common(1)

    def reword(principles):
        (found,) = [p for p in principles if p["id"] == changed]
        found["comparison"] += " Mind the details."

    edited(files, reword)
    label(files, tiny_model=tiny_world["feedback"])
    after = labels(files)
    assert set(after) == set(before)
    for id, row in before.items():
        touched = any(j["principle_id"] == changed for j in row["judgements"])
        assert (after[id]["constitution_hash"] != row["constitution_hash"]) == touched
        assert touched or after[id] == row


def test_new_principles_take_only_the_labels_that_draw_them(files, tiny_world):
    label(files, tiny_model=tiny_world["feedback"])
    before = labels(files)
    new = {f"new_{i}": f"Which answer is more candid in way {i}?" for i in range(3)}
    added = [{"id": id, "category": "honesty", "source": "ours", "comparison": text} for id, text in new.items()]
    edited(files, lambda principles: principles.extend(added))
    label(files, tiny_model=tiny_world["feedback"])
    after = labels(files)
    moved = [id for id, row in after.items() if row != before[id]]
    assert 0 < len(moved) < 0.6 * len(before)  # 3 principles of 12
    assert all(j["principle_id"] in new for id in moved for j in after[id]["judgements"])


def test_reaggregation_reproduces_the_labels_and_can_change_them(files, tiny_world, tmp_path, capsys):
    label(files, "labeller.scripted.slot_bias=2.0", tiny_model=tiny_world["feedback"])
    capsys.readouterr()
    for overrides, same in (([], True), (["labelling.aggregation=prob_mean"], False)):
        out = tmp_path / "again.parquet"
        with pytest.raises(SystemExit) as left:
            main(["reaggregate", files["out"], *overrides, "--out", str(out)])
        assert not left.value.code
        again = {row["id"]: row["prob"] for row in pq.read_table(out).to_pylist()}
        assert (again == {id: row["prob"] for id, row in labels(files).items()}) == same
    assert "0 differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("labelling.principles=40", "9 principles with a comparison"),
        ("labelling.reasoning.rationales=3", "must be sampled"),
        ("labelling.template=TEMPLATE", "{answer_b} exactly once"),
        ("labelling.examples=EXAMPLES", "0.preferred"),
    ],
)
def test_mistakes_are_named_before_anything_starts(files, tiny_world, tmp_path, capsys, override, message):
    (tmp_path / "template.txt").write_text("{conversation} {comparison}\n(A) {answer_a}\n(B) nothing\n\nWhich?")
    (tmp_path / "examples.yaml").write_text(
        "- {prompt: q, comparison: which, answer_a: x, answer_b: y, preferred: C}\n"
    )
    override = override.replace("TEMPLATE", str(tmp_path / "template.txt"))
    override = override.replace("EXAMPLES", str(tmp_path / "examples.yaml"))
    assert label(files, override, tiny_model=tiny_world["feedback"]) == 2
    assert message in capsys.readouterr().err
    assert not Path(files["out"]).exists()


def test_a_judge_that_computes_nan_labels_nothing_and_is_forgotten_once_mended(files, tiny_world, tmp_path, capsys):
    """Its rows fail for a cause outside themselves, so the same command labels them with a judge that works."""
    judge = tmp_path / "judge"
    shutil.copytree(tiny_world["feedback"], judge)
    weights = load_file(judge / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, judge / "model.safetensors", metadata={"format": "pt"})
    hf = ["labeller.engine=hf", "labeller.max_length=256", "labelling.min_letter_mass=0"]
    assert label(files, *hf, tiny_model=str(judge)) == 1
    assert "computes numbers that are not finite" in " ".join(capsys.readouterr().err.split())
    shutil.copytree(tiny_world["feedback"], judge, dirs_exist_ok=True)
    assert label(files, *hf, tiny_model=str(judge)) == 0
    made = labels(files).values()
    assert made and all(0 < row["prob"] < 1 for row in made if row["status"] == "ok")
    assert all(math.isfinite(judgement["logprob_a"]) for row in made for judgement in row["judgements"])


def test_dialogues_that_were_shortened_for_the_judge_are_counted(files, tiny_world, capsys):
    turns = "".join(f"\n\nHuman: {'word ' * 30}{i}\n\nAssistant: yes" for i in range(4))
    long = {"prompt": f"{turns}\n\nHuman: Why?\n\nAssistant:", "answer_1": "one", "answer_2": "two"}
    Path(files["pairs"]).write_text(json.dumps(long) + "\n" + json.dumps(pair(0)) + "\n")
    assert label(files, "labeller.max_length=800", tiny_model=tiny_world["feedback"]) == 0
    shown = capsys.readouterr().out
    assert [row["truncated"] for row in labels(files).values()].count(True) == 1
    rows = json.loads((Path(files["out"]) / "manifest.json").read_text())["rows"]
    assert rows["preferences"]["cut"] == 1 and "cut" not in rows["pairs"]
    (line,) = [line for line in shown.splitlines() if "judged on a shortened dialogue" in line]
    assert line.split("│")[2].strip() == "1"
