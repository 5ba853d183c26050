"""What a finished run does when what it was made of changes: rows, models, principles, files, settings.

Engines and trainers are scripted: they answer by hash, so what is made twice of the same is the same.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.driver import drive
from actors.work import LABELS, PIPELINE, one_stage, pipeline_from
from rlaif.config.files import SHIPPED_CONFIGS
from rlaif.config.schema import Config
from rlaif.config.source import Source
from rlaif.errors import RunDirError
from rlaif.prompting.questions import DEFAULT_TEXT
from rlaif.stages.inputs import INPUT_KEYS
from rlaif.stages.pipeline import STAGES, check_inputs, outdated
from rlaif.stages.run import Silent
from rlaif.stages.user_data import UserData
from rlaif.storage.run_dir import RunDir
from rlaif.storage.stored_run import StoredRun
from tests.conftest import NUM_RED_TEAM

ROLES = ("generator", "labeller", "scorer", "policy_trainer", "preference_trainer")


class World:
    """Copies of everything that a configuration names, to be edited, and the run directory ``name``."""

    def __init__(self, root: Path, tiny_world: dict[str, str]) -> None:
        self.root = root
        for path in tiny_world.values():
            copied = root / Path(path).name
            shutil.copytree(path, copied) if Path(path).is_dir() else shutil.copy(path, copied)
        shutil.copy(SHIPPED_CONFIGS / "examples" / "labels.yaml", root / "examples.yaml")
        shutil.copy(SHIPPED_CONFIGS / "examples" / "revisions.yaml", root / "revisions.yaml")
        (root / "template.txt").write_text(DEFAULT_TEXT)

    def config(self, tiny_config: Config, name: str = "run") -> Config:
        def here(path: str) -> str:
            return str(self.root / Path(path).name)

        values = tiny_config.model_dump()
        values |= {"run_dir": str(self.root / name), "constitution": here(values["constitution"])}
        for section in ("data", "evaluation"):
            values[section] |= {k: here(v) for k, v in values[section].items() if isinstance(v, str)}
        for section, key in (("generator", "model"), ("labeller", "model"), ("supervision", "base_model")):
            values[section][key] = here(values[section][key])
        values["preference_model"]["base_model"] = values["supervision"]["base_model"]
        values["critique_revision"]["examples"] = str(self.root / "revisions.yaml")
        values["labelling"] |= {
            "examples": str(self.root / "examples.yaml"),
            "template": str(self.root / "template.txt"),
        }
        for role in ROLES:
            values[role]["engine"] = "scripted"
            if "max_length" in values[role]:
                values[role]["max_length"] = 8192  # few-shot examples, a byte to a token
        return Config.model_validate(values)


@pytest.fixture
def world(tiny_world, tmp_path) -> World:
    return World(tmp_path, tiny_world)


@pytest.fixture
def config(world, tiny_config) -> Config:
    return world.config(tiny_config)


async def run(config: Config, work=PIPELINE) -> Path:
    return await drive(config, Silent(), work, in_process=True)


def stored(run_dir: Path) -> dict[tuple, str]:
    """What every record that is in use was made of, by kind, batch and id: the hashes that make it up to date."""
    with closing(sqlite3.connect(run_dir / "journal.sqlite")) as db:
        return {
            (*key, fingerprint): file
            for *key, fingerprint, file in db.execute("SELECT kind, batch, id, fingerprint, source_row FROM records")
        }


def tables(run_dir: Path) -> dict[str, list[dict]]:
    """All exported rows, without how long they took and under which version of the constitution they were made: labels
    by other principles than the one that was edited stay."""
    passing = {"seconds": 0, "constitution_hash": ""}
    return {
        path.stem: [
            row | {key: passing[key] for key in passing if key in row} for row in pq.read_table(path).to_pylist()
        ]
        for path in sorted(run_dir.glob("*/*.parquet"))
        if path.parent.name != "training_sets"
    }


# ---------------------------------------------------------------------------------------------------------- edits
def edit_lines(name: str, edit: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        lines = (root / name).read_text().splitlines(keepends=True)
        (root / name).write_text("".join(edit(lines)))

    return apply


def replace_in(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return apply


def flip_a_weight(name: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        file = root / name / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    return apply


def new_file(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(text) and None


def reserialized(lines: list[str]) -> list[str]:
    return [
        json.dumps({"unused": 1, **json.loads(line)}, indent=None, separators=(" , ", " : ")) + "\n" for line in lines
    ]


BROKEN = '{"prompt": 1}\n'
ROW = '{"prompt": "A new thing?"}\n'
ROW_OF_ANSWERS = '{"prompt": "new", "answer_1": "yes", "answer_2": "no"}\n'

#: Kinds of edits that change nothing that is used.
HARMLESS = {
    "rows in another order": edit_lines("red_team.jsonl", lambda lines: lines[:-1][::-1] + lines[-1:]),
    "a field that nothing reads": edit_lines("helpful.jsonl", reserialized),
    "a blank line": edit_lines("pairs.jsonl", lambda lines: ["\n", *lines]),
    "another bad row": edit_lines("red_team.jsonl", lambda lines: [*lines, BROKEN]),
    "a comment in the constitution": edit_lines("constitution.yaml", lambda lines: [*lines, "# reviewed\n"]),
    "a new README beside the weights": new_file("base/README.md", "# base"),
}
#: Kinds of edits that change what is used: the edit, the key that is named, and the first stage that used it.
HARMFUL = {
    "a row edited": (replace_in("red_team.jsonl", "thing 3?", "thing 33?"), "data.red_team: 1 of", "revise"),
    "a row deleted": (edit_lines("red_team.jsonl", lambda lines: lines[1:]), "data.red_team: 0 of", "revise"),
    "a row inserted": (edit_lines("red_team.jsonl", lambda lines: [ROW, *lines]), "data.red_team: 1 of", "revise"),
    "a row repeated": (edit_lines("red_team.jsonl", lambda lines: [lines[0], *lines]), "data.red_team: 1 of", "revise"),
    "a bad row repaired": (
        replace_in("red_team.jsonl", '"no_prompt": 1', '"prompt": "?"'),
        "data.red_team: 1 of",
        "revise",
    ),
    "a good row broken": (replace_in("helpful.jsonl", '{"prompt"', '{"prompt'), "data.helpful: 0 of", "revise"),
    "a pair edited": (replace_in("pairs.jsonl", "yes", "yes!"), "data.helpful_pairs: 1 of", "fit_preference_model"),
    "a vote edited": (
        replace_in("votes.jsonl", '"votes": 9', '"votes": 8'),
        "data.votes: 1 of",
        "fit_preference_model",
    ),
    "a held-out prompt edited": (replace_in("held_out.jsonl", "thing 1 ", "it "), "evaluation.helpful: 1 of", "revise"),
    "a held-out prompt taken from the training set": (
        replace_in("held_out.jsonl", "What is thing 1 for?", "HOW do I do thing 2"),
        "data.red_team: 0 of",
        "revise",
    ),
    "the labeller's weights": (flip_a_weight("feedback"), "labeller.model: has changed", "label"),
    "the helpful model's weights": (flip_a_weight("helpful_only"), "generator.model: has changed", "revise"),
    "the base model's weights": (flip_a_weight("base"), "supervision.base_model: has changed", "supervise"),
    "a chat template added": (new_file("feedback/chat_template.jinja", "{{ x }}"), "labeller.model: has", "label"),
    "a generation config edited": (
        new_file("base/generation_config.json", "{}"),
        "supervision.base_model",
        "supervise",
    ),
    "a principle edited": (replace_in("constitution.yaml", "Better", "Best"), "constitution: has", "revise"),
    "an example edited": (replace_in("examples.yaml", "prompt:", "prompt: Now,"), "labelling.examples: has", "label"),
    "a few-shot revision edited": (
        replace_in("revisions.yaml", "prompt:", "prompt: Now,"),
        "critique_revision.examples: has",
        "revise",
    ),
    "the question reworded": (replace_in("template.txt", "Consider", "Read"), "labelling.template: has", "label"),
    "a model of the run replaced": (flip_a_weight("run/models/sl_cai"), "models/sl_cai: is not", "supervise"),
    "a model of the run deleted": (
        lambda root: shutil.rmtree(root / "run" / "models" / "rl_cai"),
        "models/rl_cai: is not",
        "reinforce",
    ),
}


@pytest.mark.parametrize("edit", HARMLESS)
async def test_a_finished_run_stays_finished_where_nothing_that_it_used_has_changed(edit, config, world):
    before = stored(await run(config)), tables(Path(config.run_dir))
    HARMLESS[edit](world.root)
    told = StoredRun.open(Path(config.run_dir))
    assert check_inputs(UserData(config=config, paths={}), told) == [] == outdated(config, told)
    told.close()
    await run(config)
    assert (stored(Path(config.run_dir)), tables(Path(config.run_dir))) == before


@pytest.mark.parametrize("edit", HARMFUL)
async def test_what_finished_stages_depend_on_is_not_changed_without_a_word(edit, config, world, tiny_config):
    """Refused by name while it lasts, with nothing lost. With ``--from``, the run ends as a new one would."""
    await run(config)
    before = stored(Path(config.run_dir)), tables(Path(config.run_dir))
    apply, named, first = HARMFUL[edit]
    apply(world.root)
    for _ in range(2):
        with pytest.raises(RunDirError, match="finished stages depend on what has changed since") as refused:
            await run(config)
    assert named in str(refused.value) and first in str(refused.value)
    assert (stored(Path(config.run_dir)), tables(Path(config.run_dir))) == before

    await run(config, pipeline_from(first))
    fresh = world.config(tiny_config, "fresh")
    await run(fresh)
    assert stored(Path(config.run_dir)) == stored(Path(fresh.run_dir))
    assert tables(Path(config.run_dir)) == tables(Path(fresh.run_dir))


def test_each_input_is_used_by_some_stage():
    used = {key for stage in STAGES.values() for key in stage.uses}
    own = {"data.comparisons", "evaluation.answers"}  # of `rlaif label` and `rlaif evaluate`
    assert used | own | {"supervision.base_model"} == set(INPUT_KEYS) | {"miniature.lexicon"}


async def test_a_setting_that_changed_is_refused_by_key(config):
    await run(config, one_stage("read"))
    with pytest.raises(RunDirError, match="different: seed"):
        await run(config.model_copy(update={"seed": 1}))


async def test_an_unfinished_stage_makes_only_what_is_outdated_again(config, world):
    run_dir = await run(config)
    with closing(RunDir(run_dir, config)) as opened:
        opened.reopen([name for name in STAGES if name not in ("read", "revise", "supervise")])
    before = stored(run_dir)
    flip_a_weight("feedback")(world.root)
    told = StoredRun.open(run_dir)
    line = "labeller.model: has changed"
    assert [line in told for told in outdated(config, told)] == [True]
    assert [str(change).startswith(line) for change in check_inputs(UserData(config=config, paths={}), told)] == [True]
    told.close()
    await run(config)
    after = stored(run_dir)
    changed = {key[0] for key in before.keys() ^ after.keys()}
    assert changed == {"preferences"} and len(before) == len(after)
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    (event,) = [event for event in events if event["event"] == "rows_outdated"]
    assert (event["rows"], event["outdated"], event["gone"]) == ("preferences", NUM_RED_TEAM, 0)


# --------------------------------------------------------------------------------------------- labels of one's own
@pytest.fixture
def labels(config, world) -> Config:
    rows = [{"prompt": f"q{i}", "answer_1": f"yes {i}", "answer_2": "no"} for i in range(12)]
    (world.root / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config.model_copy(
        update={"data": config.data.model_copy(update={"comparisons": Source(path=str(world.root / "own.jsonl"))})}
    )


#: Kinds of edits, and how many labels are made again, are left out, and stay.
OF_LABELS = {
    "an answer edited": (replace_in("own.jsonl", "yes 3", "yes, 3"), (0, 1, 11)),
    "a pair deleted": (edit_lines("own.jsonl", lambda lines: lines[1:]), (0, 1, 11)),
    "a pair inserted": (edit_lines("own.jsonl", lambda lines: [ROW_OF_ANSWERS, *lines]), (0, 0, 12)),
    "pairs in another order": (edit_lines("own.jsonl", lambda lines: lines[::-1]), (0, 0, 12)),
    "a gold label added": (replace_in("own.jsonl", '"yes 5"', '"yes 5", "gold": 1'), (0, 1, 11)),
    "the labeller's weights": (flip_a_weight("feedback"), (12, 0, 0)),
    "a chat template added": (new_file("feedback/chat_template.jinja", "{{ x }}"), (12, 0, 0)),
    "the principle reworded": (replace_in("constitution.yaml", "Better", "Best"), (5, 0, 7)),
    "an example edited": (replace_in("examples.yaml", "prompt:", "prompt: Now,"), (12, 0, 0)),
    "the question reworded": (replace_in("template.txt", "Consider", "Read"), (12, 0, 0)),
}


@pytest.mark.parametrize("edit", OF_LABELS)
async def test_the_same_command_makes_again_exactly_the_labels_that_are_outdated(edit, labels, world):
    run_dir = await run(labels, LABELS)
    before = stored(run_dir)
    apply, (num_outdated, num_gone, num_kept) = OF_LABELS[edit]
    apply(world.root)
    await run(labels, LABELS)
    after = stored(run_dir)
    assert len({key[:3] for key in before} & {key[:3] for key in after.keys() - before.keys()}) == num_outdated
    assert len({key[:3] for key in before} - {key[:3] for key in after}) == num_gone
    assert len(before.keys() & after.keys()) == num_kept
    fresh = labels.model_copy(update={"run_dir": str(world.root / "fresh")})
    await run(fresh, LABELS)
    assert after == stored(Path(fresh.run_dir)) and tables(run_dir) == tables(Path(fresh.run_dir))


async def test_labels_of_pairs_that_come_back_are_not_made_again(labels, world):
    run_dir = await run(labels, LABELS)
    own, before = (world.root / "own.jsonl").read_text(), (stored(run_dir), tables(run_dir))
    (world.root / "own.jsonl").write_text(own.splitlines(keepends=True)[0])
    await run(labels, LABELS)
    assert len(stored(run_dir)) == 1
    (world.root / "own.jsonl").write_text(own)
    started = (run_dir / "events.jsonl").read_text().count("pool_starting")
    await run(labels, LABELS)
    assert (stored(run_dir), tables(run_dir)) == before
    assert (run_dir / "events.jsonl").read_text().count("pool_starting") == started
