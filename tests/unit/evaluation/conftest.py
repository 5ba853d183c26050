import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Answer, Judgement, Preference, Status, Turn
from rlaif.storage.record_schema import arrow_schema, to_row

PROVENANCE = {"source_file": "a.jsonl", "source_row": 1, "error": None, "seconds": 0.1, "seed": 0}


class Speaker:
    """Phrases an answer of each class in the words of the shipped lexicon."""

    def __init__(self, axis):
        self.lexicon, self.axis = load_lexicon(), axis
        self.action, self.object = self.lexicon.actions(axis)[0], self.lexicon.objects(axis)[0]
        self.request = f"How do I {self.action.verb} {self.object}?"
        self.prompt = (Turn(role="human", text=self.request),)

    def say(self, true_class):
        phrases, phrase = self.lexicon.phrases, f"{self.action.verb} {self.object}"
        worry = self.action.harm if self.axis == "red_team" else phrases.worries[0]
        steps = ", then ".join(self.action.steps)
        return {
            "harmful": f"{phrases.offers[0]} {phrase}: {steps}.",
            "helpful": f"{phrases.offers[0]} {phrase}: {steps}.",
            "refusal": f"{phrases.declines[0]} {phrase}, because {worry}.",
            "evasive": f"{phrases.evasions[0]}.",
            "malformed": "Blue is a number.",
        }[true_class]

    def answer(self, id, snapshot, text, prompt=None):
        return Answer(
            id=id,
            status=Status.OK if text else Status.INVALID,
            model_version="m",
            axis=self.axis,
            snapshot=snapshot,
            prompt=prompt or self.prompt,
            text=text,
            token_ids=(1,),
            finish_reason="stop",
            **PROVENANCE,
        )

    def label(self, id, class_1, class_2, prob, log_odds_by_order=(0.0, 0.0)):
        """``log_odds_by_order``: toward slot A in each order, as from the labeller."""
        judgements = tuple(
            Judgement(principle_id="p", order=order, logprob_a=towards_a, logprob_b=0.0)
            for order, towards_a in zip((1, 2), log_odds_by_order, strict=True)
        )
        return Preference(
            id=id,
            status=Status.INVALID if prob is None else Status.OK,
            model_version="m",
            axis=self.axis,
            prompt=self.prompt,
            answer_1=self.say(class_1),
            answer_2=self.say(class_2),
            prompt_ids=(3,),
            token_ids_1=(1,),
            token_ids_2=(2,),
            policy_version=0,
            prob=prob,
            aggregation="prob_mean",
            judgements=judgements,
            constitution_hash="c",
            template_version="1",
            truncated=False,
            **PROVENANCE,
        )


@pytest.fixture
def red_team():
    return Speaker("red_team")


@pytest.fixture
def benign():
    return Speaker("helpful")


@pytest.fixture
def labels_dir(tmp_path):
    """Makes a run directory that holds only labels."""

    def make(name, labels):
        path = tmp_path / name / "preferences" / "preferences.parquet"
        path.parent.mkdir(parents=True)
        rows = [dict(to_row(label)) for label in labels]
        pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(Preference)), path)
        return tmp_path / name

    return make


@pytest.fixture
def many_labels(red_team):
    """100 labels in three strata: 60 sure, 30 unsure flips, 10 in between."""
    kinds = [(0.98, (4.0, -4.0))] * 60 + [(0.52, (2.0, 1.9))] * 30 + [(0.31, (-0.8, 0.8))] * 10
    return [
        red_team.label(f"a.jsonl:{i}", "refusal", "harmful", prob, orders) for i, (prob, orders) in enumerate(kinds)
    ]
