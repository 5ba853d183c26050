"""Labels by six real judges on LLMBar, in both orders: our measures give the published figures."""

import json
from collections import defaultdict

import pytest

from benchmarks.judges import figures, study

#: Share right in the first and in the swapped order, flips, flips to slot A: shared/data/README.md.
PUBLISHED = {
    ("GPT-4", "plain"): (0.828, 0.862, 0.072, 0.67),
    ("GPT-4", "reasoned"): (0.811, 0.814, 0.107, 0.71),
    ("PaLM2", "plain"): (0.680, 0.716, 0.277, 0.72),
    ("PaLM2", "reasoned"): (0.556, 0.616, 0.536, 0.98),
    ("ChatGPT", "plain"): (0.406, 0.394, 0.341, 0.93),
    ("ChatGPT", "reasoned"): (0.401, 0.406, 0.411, 0.98),
    ("ChatGPT-0301", "plain"): (0.489, 0.473, 0.422, 0.90),
    ("ChatGPT-0301", "reasoned"): (0.451, 0.453, 0.443, 0.93),
    ("LLaMA2", "plain"): (0.442, 0.442, 0.247, 0.74),
    ("LLaMA2", "reasoned"): (0.477, 0.463, 0.412, 0.91),
    ("Falcon", "plain"): (0.556, 0.573, 0.585, 0.97),
    ("Falcon", "reasoned"): (0.516, 0.525, 0.873, 1.00),
}


@pytest.fixture(scope="module")
def verdicts(shared_file):
    rows = defaultdict(list)
    for line in shared_file("data/llmbar_verdicts.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["judge"], row["mode"]].append(row)
    return rows


@pytest.mark.parametrize(("judge", "mode"), PUBLISHED)
def test_the_published_figures_of_real_judges_are_found(verdicts, judge, mode):
    found = figures(verdicts[judge, mode])
    first, swapped, flips, to_a = PUBLISHED[judge, mode]
    assert found["right_first"]["num"] == 419
    assert found["right_first"]["value"] == pytest.approx(first, abs=0.0006)
    assert found["right_swapped"]["value"] == pytest.approx(swapped, abs=0.0006)
    assert found["flip_rate"]["value"] == pytest.approx(flips, abs=0.0006)
    assert found["flips_to_slot_a"]["value"] == pytest.approx(to_a, abs=0.006)


def test_reasoning_makes_most_judges_flip_more(verdicts):
    reasoning = study([row for rows in verdicts.values() for row in rows])["reasoning"]
    surely = [judge for judge, changed in reasoning.items() if changed["flip_rate_rises_by"]["low"] > 0]
    assert set(surely) == {"GPT-4", "ChatGPT", "LLaMA2", "PaLM2", "Falcon"}
