import json
from collections import defaultdict

import pytest

from rlaif.labels.verdicts import OrderVerdicts, measure_verdicts

#: Judge and mode -> (right first, right swapped, flips, share of flips to slot A), from the README next to the data.
LLMBAR = {
    ("GPT-4", "plain"): (".828", ".862", ".072", ".67"),
    ("GPT-4", "reasoned"): (".811", ".814", ".107", ".71"),
    ("PaLM2", "plain"): (".680", ".716", ".277", ".72"),
    ("PaLM2", "reasoned"): (".556", ".616", ".536", ".98"),
    ("ChatGPT", "plain"): (".406", ".394", ".341", ".93"),
    ("ChatGPT", "reasoned"): (".401", ".406", ".411", ".98"),
    ("ChatGPT-0301", "plain"): (".489", ".473", ".422", ".90"),
    ("ChatGPT-0301", "reasoned"): (".451", ".453", ".443", ".93"),
    ("LLaMA2", "plain"): (".442", ".442", ".247", ".74"),
    ("LLaMA2", "reasoned"): (".477", ".463", ".412", ".91"),
    ("Falcon", "plain"): (".556", ".573", ".585", ".97"),
    ("Falcon", "reasoned"): (".516", ".525", ".873", "1.00"),
}


def verdicts(first, second, better=1, prompt=None):
    return OrderVerdicts(prompt=prompt or object(), first=first, second=second, better=better)


def test_measures_by_hand():
    """Ten pairs: 4 right, 1 wrong, 3 choose slot A twice, 1 slot B twice, 1 has no second verdict."""
    pairs = [*(verdicts(1, 1) for _ in range(4)), verdicts(2, 2)]
    pairs += [*(verdicts(1, 2) for _ in range(3)), verdicts(2, 1), verdicts(1, None)]
    found = measure_verdicts(pairs)
    values = {name: (measure.value, measure.num) for name, measure in found.items()}
    assert values == {
        "flip_rate": (pytest.approx(4 / 9), 9),
        "flips_to_slot_a": (0.75, 4),
        "gold_accuracy_first": (0.8, 10),
        "gold_accuracy_second": (0.5, 10),
        "gold_accuracy": (pytest.approx((4 + 4 / 2) / 10), 10),
        "tie_rate": (0.4, 10),
        "invalid_rate": (0.1, 10),
    }
    assert (found["gold_accuracy_second"].low, found["gold_accuracy_second"].high) == pytest.approx(
        (0.2366, 0.7634), abs=1e-4
    )


def test_which_answer_is_called_the_first_changes_nothing_but_the_order():
    pairs = [verdicts(1, 1, 2, "a"), verdicts(1, 2, 1, "b"), verdicts(2, 1, 1, "c"), verdicts(1, None, 1, "d")]
    other = {1: 2, 2: 1, None: None}
    mirrored = [verdicts(other[p.second], other[p.first], other[p.better], p.prompt) for p in pairs]
    one, two = measure_verdicts(pairs), measure_verdicts(mirrored)
    for name in ("flip_rate", "flips_to_slot_a", "gold_accuracy", "tie_rate", "invalid_rate"):
        assert one[name] == two[name], name
    assert one["gold_accuracy_first"].value == two["gold_accuracy_second"].value


def test_verdicts_without_gold_have_flips_only():
    assert set(measure_verdicts([verdicts(1, 2, None)])) == {"flip_rate", "flips_to_slot_a", "tie_rate", "invalid_rate"}


def test_real_judges_have_the_published_figures(shared_file):
    """LLMBar: six judges, plain and reasoned, each in both orders (419 pairs each)."""
    prompts = {row["id"]: row["prompt"] for row in rows_of(shared_file("data/llmbar_pairs.jsonl"))}
    pairs = defaultdict(list)
    for row in rows_of(shared_file("data/llmbar_verdicts.jsonl")):
        better = 1 if row["gold_in_slot"] == "A" else 2  # answer_1 is the one that was in slot A first
        number = {"chosen": better, "rejected": 3 - better, None: None}
        verdict = OrderVerdicts(
            prompt=prompts[row["id"]], first=number[row["first"]], second=number[row["swapped"]], better=better
        )
        assert row["slot_first"] == {1: "A", 2: "B", None: row["slot_first"]}[verdict.first]
        pairs[row["judge"], row["mode"]].append(verdict)
    assert set(pairs) == set(LLMBAR)
    for judge, expected in LLMBAR.items():
        found = measure_verdicts(pairs[judge])
        names = ("gold_accuracy_first", "gold_accuracy_second", "flip_rate", "flips_to_slot_a")
        digits = [len(text.partition(".")[2]) for text in expected]
        shown = [f"{found[name].value:.{n}f}" for name, n in zip(names, digits, strict=True)]
        assert [text.removeprefix("0") if text != "1.00" else text for text in shown] == list(expected), judge
        assert {found[name].num for name in ("gold_accuracy_first", "gold_accuracy")} == {419}
        assert all(measure.low <= measure.value <= measure.high for measure in found.values())
        both = [p for p in pairs[judge] if p.first and p.second]
        right = sum(p.first == p.second == p.better for p in both) + sum(p.first != p.second for p in both) / 2
        assert found["gold_accuracy"].value == pytest.approx(right / 419)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
