"""What a stored record depends on: its fingerprint changes with that, and with nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.config.schema import CritiqueRevision, Gate, Labelling, SamplingSettings
from rlaif.constitution.principles import Constitution, load_constitution
from rlaif.data.comparisons import unsampled_comparison
from rlaif.ids import fingerprint
from rlaif.prompting.questions import QuestionTemplate
from rlaif.records import Comparison, Prompt, Turn
from rlaif.tasks.critique_revision import Revise
from rlaif.tasks.labelling import Label, principles_for
from rlaif.tasks.sampling import SamplePair

OLD = load_constitution("nine_points")
PROMPT = Prompt(id="p", source_file="f", source_row=1, axis="red_team", turns=(Turn(role="human", text="hi"),))


def edited(*, drop: tuple[str, ...] = (), **fields) -> Constitution:
    """OLD without the principles in ``drop``, and with the changes ``ID={field: value}``."""
    tree = OLD.model_dump()
    tree["principles"] = [p | fields.get(p["id"], {}) for p in tree["principles"] if p["id"] not in drop]
    return Constitution.model_validate(tree)


def label(constitution: Constitution = OLD, **settings) -> Label:
    return Label(seed=0, constitution=constitution, settings=Labelling(**settings), dialogue_format="human_assistant")


def revise(constitution: Constitution = OLD) -> Revise:
    return Revise(
        seed=0,
        constitution=constitution,
        settings=CritiqueRevision(),
        dialogue_format="human_assistant",
        sampling=SamplingSettings(),
    )


def pair(row: int = 0, answer_1: str = "yes", answer_2: str = "no") -> Comparison:
    return unsampled_comparison(f"r{row}", PROMPT.turns, answer_1, answer_2)


def of(task, row) -> str:
    return fingerprint(task.inputs(row))


@given(num=st.integers(1, 3), weight=st.floats(0.1, 10), row=st.integers(0, 10_000))
def test_a_label_depends_on_the_principles_that_it_is_judged_by_alone(num, weight, row):
    """Reword, reweight or remove ``safe``: a label is outdated if and only if ``safe`` was or is drawn for it."""

    def is_drawn(task: Label) -> bool:
        return "safe" in {p.id for p in principles_for(task.constitution, task.settings, task.seed, pair(row))}

    before = label(principles=num, draw="weighted")
    for new in (edited(safe={"comparison": "Which is safer?", "weight": weight}), edited(drop=("safe",))):
        after = replace(before, constitution=new)
        assert (of(before, pair(row)) != of(after, pair(row))) == (is_drawn(before) or is_drawn(after))


@pytest.mark.parametrize(
    "change",
    [
        {"safe": {"revision_request": "Other.", "source": "t", "category": "honesty"}},
        {"wise": {"critique_request": "Other."}},
    ],
)
def test_a_label_does_not_depend_on_what_only_revisions_use(change):
    assert of(label(principles=9), pair()) == of(label(edited(**change), principles=9), pair())


@pytest.mark.parametrize(("conflicts", "is_outdated"), [("mean", False), ("priority", True)])
def test_a_label_depends_on_priorities_only_where_they_decide(conflicts, is_outdated):
    new = edited(**{principle.id: {"priority": "guidelines"} for principle in OLD.principles})
    settings = {"conflicts": conflicts, "principles": 2}
    assert (of(label(**settings), pair()) != of(label(new, **settings), pair())) == is_outdated


def test_the_label_of_equal_answers_depends_on_no_principle():
    same = pair(answer_2="yes")
    assert of(label(), same) == of(label(load_constitution("sixteen_principles")), same)


def test_the_gate_changes_no_label():
    assert of(label(), pair()) == of(label(gate=Gate(max_flip_rate=0.9)), pair())


@pytest.mark.parametrize(
    "other",
    [
        label(principles=2),
        label(aggregation="logit_mean"),
        replace(label(), seed=1),
        replace(label(), dialogue_format="chat_template"),
        replace(label(), template=QuestionTemplate("Other {conversation}{comparison}{answer_a}{answer_b}\nSo:")),
    ],
)
def test_a_label_depends_on_every_setting_of_its_task(other):
    assert of(label(), pair()) != of(other, pair())


def test_a_revision_depends_on_the_requests_that_were_drawn_for_it():
    task = revise()
    drawn = {task.principle(PROMPT, k).id for k in range(task.settings.rounds)}
    for principle in OLD.for_revision:
        other = revise(edited(**{principle.id: {"critique_request": "Other."}}))
        assert (of(task, PROMPT) != of(other, PROMPT)) == (principle.id in drawn)


def test_a_sampled_pair_depends_on_how_it_is_sampled():
    task = SamplePair(seed=0, dialogue_format="human_assistant", sampling=SamplingSettings())
    assert of(task, PROMPT) != of(replace(task, sampling=SamplingSettings(temperature=0.5)), PROMPT)
    assert of(task, PROMPT) == of(replace(task, sampling=SamplingSettings(max_tokens=512)), PROMPT)
