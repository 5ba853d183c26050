import json
from collections import Counter

import pytest

from rlaif.data.pairs import read_pairs
from rlaif.records import Turn

ASKED = [{"role": "user", "content": "q"}]
GOOD = [{"role": "assistant", "content": "good"}]
BAD = [{"role": "assistant", "content": "bad"}]


def read(tmp_path, *rows):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quarantined = []
    return list(read_pairs(str(file), quarantined.append)), quarantined


def transcript(*texts):
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(texts))


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": transcript("q", "good"), "rejected": transcript("q", "bad")},
        {"chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
        {"prompt": ASKED, "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": " good", "rejected": "bad"},
        {"prompt": "q", "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "good", "rejected": "bad"},
        {"prompt": None, "chosen": transcript("q", "good"), "rejected": transcript("q", "bad")},
    ],
)
def test_every_published_shape_is_read(tmp_path, row):
    (pair,), quarantined = read(tmp_path, row)
    assert not quarantined
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Turn(role="human", text="q"),), "good", "bad")
    assert pair.id == f"{pair.source_file}:1"


def test_earlier_turns_stay_in_the_prompt(tmp_path):
    (pair,), _ = read(
        tmp_path,
        {"chosen": transcript("a", "b: c\n\nd", "e", "good"), "rejected": transcript("a", "b: c\n\nd", "e", "bad")},
    )
    assert [turn.text for turn in pair.prompt] == ["a", "b: c\n\nd", "e"]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"chosen": transcript("q", "good"), "rejected": transcript("r", "bad")}, "the dialogues differ"),
        ({"prompt": "r", "chosen": ASKED + GOOD, "rejected": ASKED + BAD}, "the dialogues differ"),
        ({"chosen": transcript("q", " "), "rejected": transcript("q", "bad")}, "`chosen`: the answer is empty"),
        ({"prompt": "q", "chosen": "good", "rejected": " "}, "`rejected` is empty"),
        ({"chosen": "good", "rejected": "bad"}, "`prompt` is missing"),
        ({"prompt": "q", "chosen": "good"}, "`rejected` is missing"),
        ({"prompt": "q", "chosen": 1, "rejected": "bad"}, "`chosen` must be text or a list of messages"),
        ({"chosen": transcript("q"), "rejected": transcript("q", "bad")}, "`chosen` must end with an assistant"),
    ],
)
def test_a_bad_pair_is_quarantined_by_name(tmp_path, row, cause):
    pairs, quarantined = read(tmp_path, row, {"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert len(pairs) == 1
    assert cause in quarantined[0].cause


def test_real_pairs_lose_exactly_the_malformed_ones(public_file):
    file = public_file("hh_harmless_pairs.jsonl")
    quarantined = []
    pairs = list(read_pairs(str(file), quarantined.append))
    assert len(pairs) == 1156 - 7
    causes = Counter(bad.cause.rpartition(": ")[2] for bad in quarantined)
    assert causes == {"the dialogues differ before the last answer": 5, "the answer is empty": 2}
    for pair, line in zip(pairs[:40], file.read_text().splitlines(), strict=False):
        raw = json.loads(line)
        assert raw["chosen"].endswith(pair.chosen)
        # Nothing in the transcript is lost: its words are exactly those of the turns and the answer.
        words = " ".join([*(turn.text for turn in pair.prompt), pair.chosen]).split()
        assert words == raw["chosen"].replace("\n\nHuman:", " ").replace("\n\nAssistant:", " ").split()
