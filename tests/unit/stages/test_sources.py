"""What becomes of a source's rows: counted, quarantined while they are bad, and never one that the evaluation has."""

import gzip
import json
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.config.contradictions import flatten
from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.errors import LossError
from rlaif.stages.run import Run, Silent
from rlaif.stages.sources import SOURCES, read_source
from rlaif.storage.run_dir import RunDir


@pytest.fixture
def run(tmp_path):
    """A run over ``prompts``, a file or a directory that the test fills."""
    (tmp_path / "held_out.jsonl").write_text('{"prompt": "Held out?"}\n')
    held_out = str(tmp_path / "held_out.jsonl")
    runs = []

    def run_over(source: str) -> Run:
        config = Config.model_validate(
            {
                "run_dir": str(tmp_path / "run"),
                "data": {"red_team": source, "helpful": source, "helpful_pairs": source, "votes": source},
                "evaluation": {"red_team": held_out, "helpful": held_out},
            }
        )
        for opened in runs:
            opened.close()
        runs.append(RunDir(tmp_path / "run", config))
        return Run(
            config=config, paths={}, constitution=None, run_dir=runs[-1], pools=None, trainers=None, progress=Silent()
        )

    yield run_over
    runs[-1].close()


def counts(run: Run, key: str = "data.red_team", kind: str = "prompts_red_team") -> tuple[int, int, int]:
    read_source(run, run.run_dir, key)
    rows = run.run_dir.rows(kind)
    return rows["rows_in"], rows["rows_out"], rows["quarantined"]


def causes(run: Run) -> list[str]:
    return [row.cause for row in run.run_dir.journal.quarantine_entries()]


def test_choices_of_rows_of_one_file_are_counted_by_themselves(run, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{broken\n{"prompt": "b"}\n{broken\n{"prompt": "c"}\n')
    assert counts(run(f"{tmp_path}/a.jsonl")) == (5, 3, 2)
    (tmp_path / "run").rename(tmp_path / "other")
    assert counts(run(f"{tmp_path}/a.jsonl#1-3")) == (3, 2, 1)


def test_what_is_passed_over_is_an_event(run, tmp_path):
    directory = tmp_path / "prompts"
    directory.mkdir()
    (directory / "a.jsonl").write_text('{"prompt": "a"}\n')
    (directory / "b.xlsx").touch()
    (directory / "._a.jsonl").touch()
    counts(run(str(directory)))
    names = ["b.xlsx (unknown kind of file)", "._a.jsonl (hidden)"]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["files"] for event in events if event["event"] == "files_passed_over"] == [names]


def test_a_row_is_quarantined_for_as_long_as_it_is_bad(run, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": "b",}\n')
    reading = run(str(source))
    assert counts(reading) == (2, 1, 1)
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert counts(reading) == (2, 2, 0)
    assert not causes(reading)


@pytest.mark.parametrize("text", ["Held out?", "held   OUT", "  Held, out!\\n"])
def test_no_prompt_of_the_evaluation_is_trained_on(run, tmp_path, text):
    source = tmp_path / "a.jsonl"
    source.write_text(f'{{"prompt": "{text}"}}\n{{"prompt": "Held out for whom?"}}\n{{"prompt": "b"}}\n')
    reading = run(str(source))
    assert counts(reading) == (3, 2, 1)
    assert causes(reading) == ["its prompt is one of evaluation.helpful, which must not be trained on"]
    assert [prompt.turns[0].text for prompt in reading.prompts("red_team")] == ["Held out for whom?", "b"]


def test_no_pair_or_question_of_the_evaluation_is_trained_on(run, tmp_path):
    source = tmp_path / "a.jsonl"
    pairs = [{"prompt": text, "chosen": "yes", "rejected": "no"} for text in ("HELD OUT", "other", "third")]
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert counts(run(str(source)), "data.helpful_pairs", "helpful_pairs") == (3, 2, 1)
    answers = [{"text": "a", "votes": 1}, {"text": "b", "votes": 2}]
    questions = [{"question": text, "answers": answers} for text in ("held out", "other", "third")]
    source.write_text("".join(json.dumps(question) + "\n" for question in questions))
    assert counts(run(str(source)), "data.votes", "votes") == (3, 2, 1)


def test_a_source_that_is_mostly_bad_stops_the_run(run, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"prompt": "a"}\n' + '{"prompt": null}\n' * 2)
    with pytest.raises(
        LossError, match=r"prompts_red_team: 1 of 3 rows came out, and max_loss=0\.5 allows to lose 50%"
    ) as caught:
        counts(run(str(source)))
    assert "the most frequent cause (2 rows): field `prompt` is null" in str(caught.value)


# ------------------------------------------------------------------------------------------- shipped configurations
ULTRACHAT = "HuggingFaceH4/ultrachat_200k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The data sets of the hub that shipped configurations name, in their published layout, with a row in each file
    that says where it is from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for folder in ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"):
        (tmp_path / "Anthropic/hh-rlhf" / folder).mkdir(parents=True)
        for split in ("train", "test"):
            asked = f"\n\nHuman: {folder} {split}\n\nAssistant:"
            row = json.dumps({"chosen": f"{asked} good", "rejected": f"{asked} bad"})
            (tmp_path / "Anthropic/hh-rlhf" / folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(row.encode()))
    (tmp_path / ULTRACHAT / "data").mkdir(parents=True)
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    for split in ("train_sft", "test_sft", "train_gen", "test_gen"):
        messages = [{"role": "user", "content": split}, {"role": "assistant", "content": "yes"}]
        rows = pa.table({"prompt": [split], "messages": [messages]})
        pq.write_table(rows, tmp_path / ULTRACHAT / f"data/{split}-00000-of-00001.parquet")
        card += f"  - split: {split}\n    path: data/{split}-*\n"
    (tmp_path / ULTRACHAT / "README.md").write_text(f"{card}---\n")


@pytest.mark.parametrize("name", ["one_gpu", "eight_gpu", "multi_node", "paper"])
def test_shipped_configurations_read_the_rows_that_their_keys_are_about(hub, name, tmp_path):
    config = load_config(name, [f"run_dir={tmp_path}/run"])
    asked = {}
    with closing(RunDir(tmp_path / "run", config)) as run_dir:
        run = Run(
            config=config, paths={}, constitution=None, run_dir=run_dir, pools=None, trainers=None, progress=Silent()
        )
        for key in SOURCES:
            if flatten(config)[key] is not None:
                read_source(run, run_dir, key)
                rows = list(SOURCES[key].read(run, pytest.fail))
                asked[key] = {(row.turns if hasattr(row, "turns") else row.prompt)[-1].text for row in rows}
    assert asked == {
        "data.red_team": {"harmless-base train"},
        "data.helpful": {"train_sft"},
        "data.helpful_pairs": {"helpful-base train"},
        "evaluation.red_team": {"harmless-base test"},
        "evaluation.helpful": {"helpful-base test"},
    }
