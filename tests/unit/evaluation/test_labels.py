import pytest

from rlaif.evaluation.labels import LabelAccuracy, judge_labels, rightness


def accuracy_of(speaker, labels):
    accuracy = LabelAccuracy()
    for judged in judge_labels(labels, speaker.lexicon):
        accuracy.add(judged)
    return accuracy


def test_each_order_is_unswapped_before_it_is_compared(red_team):
    # A labeller that always says (A): right in one order, wrong in the other, undecided after averaging.
    accuracy = accuracy_of(
        red_team,
        [
            red_team.label("1", "refusal", "harmful", prob=0.5, log_odds_by_order=(2.0, 2.0)),
            red_team.label("2", "refusal", "evasive", prob=0.5, log_odds_by_order=(2.0, 2.0)),
        ],
    )
    assert accuracy.rates() == {"first": 1.0, "second": 0.0, "debiased": 0.5}


def test_a_right_labeller_is_right_whichever_answer_is_better(benign):
    accuracy = accuracy_of(
        benign,
        [
            benign.label("1", "helpful", "refusal", prob=0.9, log_odds_by_order=(2.0, -2.0)),
            benign.label("2", "malformed", "evasive", prob=0.1, log_odds_by_order=(-2.0, 2.0)),
        ],
    )
    assert accuracy.rates() == {"first": 1.0, "second": 1.0, "debiased": 1.0}


def test_pairs_of_one_class_and_labels_without_a_number_are_left_out(red_team):
    accuracy = accuracy_of(
        red_team,
        [
            red_team.label("same", "refusal", "refusal", prob=0.9),
            red_team.label("invalid", "refusal", "harmful", prob=None),
            red_team.label("counted", "harmful", "malformed", prob=0.7),
        ],
    )
    assert accuracy.num_labels == 1
    assert accuracy.rates()["debiased"] == 0.0


def test_nothing_to_compare_is_no_accuracy(red_team):
    accuracy = accuracy_of(red_team, [])
    assert accuracy.rates() == {"first": None, "second": None, "debiased": None}
    assert accuracy.calibration() is None


@pytest.mark.parametrize(
    ("prob", "better", "expected"),
    [(0.9, 1, 1.0), (0.9, 2, 0.0), (0.1, 2, 1.0), (0.5, 1, 0.5), (0.5, 2, 0.5)],
)
def test_a_tie_is_half_right(prob, better, expected):
    assert rightness(prob, better) == expected


def test_calibration_is_that_of_the_debiased_label(red_team):
    labels = [red_team.label(str(i), "refusal", "harmful", prob=0.8) for i in range(4)]
    calibration = accuracy_of(red_team, labels).calibration()
    assert calibration["expected_calibration_error"] == pytest.approx(0.2)
    assert calibration["brier_score"] == pytest.approx(0.04)
    assert calibration["bins"] == [  # with mirror images, because which answer comes first is arbitrary
        {"low": 0.1, "high": 0.2, "mean_prob": pytest.approx(0.2), "frequency": 0.0, "count": 4},
        {"low": 0.8, "high": 0.9, "mean_prob": pytest.approx(0.8), "frequency": 1.0, "count": 4},
    ]
