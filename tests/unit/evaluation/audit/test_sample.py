from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.errors import RunDirError
from rlaif.evaluation.audit.sample import allocate, draw_pairs, stratum_of
from rlaif.records import Judgement, Preference
from rlaif.storage.damage import DamagedError
from rlaif.storage.record_schema import arrow_schema, to_row

SECRET = b"s" * 32


def judgements(towards_a_first, towards_a_second):
    return [
        Judgement(principle_id="p", order=order, logprob_a=towards_a, logprob_b=0.0)
        for order, towards_a in ((1, towards_a_first), (2, towards_a_second))
    ]


# ---------------------------------------------------------------------------------------------------- strata
@pytest.mark.parametrize(
    ("prob", "name"),
    [(0.5, "50-60%"), (0.6, "50-60%"), (0.4, "50-60%"), (0.3, "60-75%"), (0.8, "75-90%"), (1.0, "90-100%")],
)
def test_confidence_is_of_the_likelier_answer(prob, name):
    assert stratum_of(prob, judgements(1.0, -1.0)) == f"{name}, orders agree"


def test_orders_are_unswapped_before_they_are_compared():
    assert stratum_of(0.5, judgements(2.0, 2.0)) == "50-60%, orders flip"  # slot A won twice
    assert stratum_of(0.95, judgements(2.0, -2.0)) == "90-100%, orders agree"


@pytest.mark.parametrize(
    ("strata", "num_rows", "expected"),
    [
        ({"big": 10_000, "small": 100}, 110, {"big": 100, "small": 10}),  # in proportion to their square roots
        ({"big": 1000, "tiny": 2}, 100, {"big": 98, "tiny": 2}),  # no more than a stratum has
        ({"a": 3, "b": 4}, 1000, {"a": 3, "b": 4}),
        ({"a": 10, "b": 1_000_000, "c": 20}, 3, {"a": 1, "b": 1, "c": 1}),
        ({"a": 10, "b": 1_000_000, "c": 20}, 2, {"a": 0, "b": 1, "c": 1}),
    ],
)
def test_rows_follow_the_roots_of_the_strata(strata, num_rows, expected):
    found = allocate(strata, num_rows)
    assert sum(found.values()) == sum(expected.values())
    assert found == pytest.approx(expected, abs=1)
    assert all(found[name] <= strata[name] for name in strata)


# -------------------------------------------------------------------------------------------------- the draw
def test_sides_and_ids_cannot_be_computed_without_the_secret(labels_dir, many_labels):
    run_dir = labels_dir("run", many_labels)
    (_, ours), (_, theirs) = (draw_pairs(run_dir, 60, seed=0, secret=secret) for secret in (SECRET, b"t" * 32))
    assert {pair.label_id for pair in ours} == {pair.label_id for pair in theirs}, "the draw itself is the seed's"
    assert not {pair.id for pair in ours} & {pair.id for pair in theirs}
    side_of = {pair.label_id: pair.answer_1 for pair in theirs}
    same = sum(pair.answer_1 == side_of[pair.label_id] for pair in ours)
    assert 12 < same < 48, "another key is another draw of sides"


def test_the_draw_is_seeded_and_does_not_depend_on_the_order_of_rows(labels_dir, many_labels):
    here, there = labels_dir("here", many_labels), labels_dir("there", many_labels[::-1])
    assert draw_pairs(here, 20, seed=1, secret=SECRET)[1] == draw_pairs(there, 20, seed=1, secret=SECRET)[1]
    assert ids(draw_pairs(here, 20, seed=1, secret=SECRET)) != ids(draw_pairs(here, 20, seed=2, secret=SECRET))


def test_every_stratum_is_drawn_from_and_counted_whole(labels_dir, many_labels):
    population, pairs = draw_pairs(labels_dir("run", many_labels), 20, seed=0, secret=SECRET)
    assert len(pairs) == 20
    assert population.strata == {"90-100%, orders agree": 60, "50-60%, orders flip": 30, "60-75%, orders agree": 10}
    drawn = Counter(pair.stratum for pair in pairs)
    assert drawn == allocate(population.strata, 20)
    assert drawn["60-75%, orders agree"] == pytest.approx(20 * 10**0.5 / (60**0.5 + 30**0.5 + 10**0.5), abs=1)


def test_more_rows_than_there_are_is_all_of_them_once(labels_dir, many_labels):
    drawn = ids(draw_pairs(labels_dir("run", many_labels), 10_000, seed=0, secret=SECRET))
    assert sorted(drawn) == sorted(label.id for label in many_labels)


def test_each_label_of_a_stratum_is_as_likely_as_another(labels_dir, red_team):
    labels = [red_team.label(f"a:{i}", "refusal", "harmful", 0.95, (3.0, -3.0)) for i in range(20)]
    run_dir = labels_dir("run", labels)
    times = Counter(id for seed in range(200) for id in ids(draw_pairs(run_dir, 5, seed, secret=SECRET)))
    assert len(times) == 20
    assert max(times.values()) < 50 + 4 * 6.2  # 50 expected, standard deviation 6.1
    assert min(times.values()) > 50 - 4 * 6.2


def test_sides_are_drawn_and_the_key_says_which(labels_dir, many_labels):
    _, pairs = draw_pairs(labels_dir("run", many_labels), 100, seed=0, secret=SECRET)
    by_id = {label.id: label for label in many_labels}
    for pair in pairs:
        label = by_id[pair.label_id]
        assert (pair.left if pair.answer_1 == "left" else pair.right) == label.answer_1
        assert (pair.right if pair.answer_1 == "left" else pair.left) == label.answer_2
    assert 30 < sum(pair.answer_1 == "left" for pair in pairs) < 70


def test_labels_with_nothing_to_agree_with_are_counted_and_left_out(labels_dir, red_team):
    labels = [
        red_team.label("invalid", "refusal", "harmful", None),
        replace(red_team.label("same", "refusal", "refusal", 0.5), judgements=()),
        red_team.label("good", "refusal", "harmful", 0.9, (3.0, -3.0)),
    ]
    population, pairs = draw_pairs(labels_dir("run", labels), 10, seed=0, secret=SECRET)
    assert population.left_out == {"invalid": 1, "identical answers": 1}
    assert [pair.label_id for pair in pairs] == ["good"]


# ------------------------------------------------------------------------------------------------ bad input
def test_a_directory_without_labels_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="no labels in preferences/"):
        draw_pairs(tmp_path, 10, seed=0, secret=SECRET)


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "preferences").mkdir()
    (tmp_path / "preferences" / "preferences.parquet").write_text("no")
    with pytest.raises(DamagedError, match=r"preferences\.parquet: is damaged, or of another version: "):
        draw_pairs(tmp_path, 10, seed=0, secret=SECRET)


def test_a_missing_column_is_named(tmp_path, red_team):
    schema = arrow_schema(Preference)
    table = pa.Table.from_pylist([dict(to_row(red_team.label("a", "refusal", "harmful", 0.9)))], schema=schema)
    (tmp_path / "preferences").mkdir()
    pq.write_table(table.drop_columns("prob"), tmp_path / "preferences" / "preferences.parquet")
    with pytest.raises(DamagedError, match=r"preferences\.parquet: .* version: no column `prob`"):
        draw_pairs(tmp_path, 10, seed=0, secret=SECRET)


def ids(drawn):
    return [pair.label_id for pair in drawn[1]]
