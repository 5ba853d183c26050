from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from rlaif.constitution.principles import (
    SHIPPED_CONSTITUTIONS,
    Constitution,
    Principle,
    draw_principle,
    draw_principles,
    load_constitution,
)
from rlaif.errors import ConfigError
from rlaif.seeds import seed_from

NUM_DRAWS = 4000
names = st.lists(st.sampled_from("abcdefghij"), min_size=2, unique=True)
weights = st.floats(0.1, 10)


def principle(id: str, **fields) -> Principle:
    return Principle(**{"id": id, "category": "honesty", "source": "s", "comparison": f"Which is more {id}?"} | fields)


def constitution(*principles: Principle, **fields) -> Constitution:
    return Constitution(name="n", version="1", principles=principles, **fields)


# ----------------------------------------------------------------------------------------------- shipped sets
def test_the_shipped_sets():
    sizes = {path.stem: len(load_constitution(path.stem).principles) for path in SHIPPED_CONSTITUTIONS.glob("*.yaml")}
    assert sizes == {"sixteen_principles": 16, "nine_points": 9, "helpful_honest": 13}


@pytest.mark.parametrize("name", ["sixteen_principles", "nine_points", "helpful_honest"])
def test_shipped_principles_serve_both_steps_in_every_category(name):
    shipped = load_constitution(name)
    assert len(shipped.for_revision) == len(shipped.for_comparison) == len(shipped.principles)
    assert len({p.category for p in shipped.principles}) == 7


# ------------------------------------------------------------------------------------------------------ draws
def test_draws_depend_on_their_key_alone():
    principles = load_constitution("sixteen_principles").principles
    drawn = [draw_principle(principles, "uniform", 0, f"row-{i}", 0).id for i in range(200)]
    assert drawn == [draw_principle(principles[::-1], "uniform", 0, f"row-{i}", 0).id for i in range(200)]
    assert len(set(drawn)) == 16


def test_draws_are_the_same_everywhere():
    """Pinned: if another machine or version drew differently, labels would be mistaken for outdated ones."""
    principles = load_constitution("sixteen_principles").principles
    drawn = [draw_principle(principles, "weighted", 0, f"red_team.jsonl:{i}", 0).id for i in range(4)]
    assert drawn == ["child_safe", "no_violence", "no_prejudice", "no_violence"]


def test_uniform_draws_are_uniform():
    principles = [principle(id, weight=weight) for id, weight in zip("abcde", range(1, 6), strict=True)]
    counts = Counter(draw_principle(principles, "uniform", i).id for i in range(NUM_DRAWS))
    assert chisquare([counts[p.id] for p in principles]).pvalue > 0.01


def test_weighted_draws_follow_weight_and_category_weight():
    drawable = constitution(
        principle("a", weight=1),
        principle("b", weight=3),
        principle("c", category="helpfulness", weight=2),
        category_weights={"helpfulness": 2.5},
    ).for_comparison
    counts = Counter(draw_principle(drawable, "weighted", i).id for i in range(NUM_DRAWS))
    expected = [NUM_DRAWS * share / 9 for share in (1, 3, 5)]
    assert chisquare([counts[id] for id in "abc"], expected).pvalue > 0.01


@pytest.mark.parametrize("weight", [0, -1, 1e-300, 1e300, float("nan"), float("inf")])
def test_weights_have_products_that_can_be_compared(weight):
    for build in (
        lambda: principle("a", weight=weight),
        lambda: constitution(principle("a"), category_weights={"honesty": weight}),
        lambda: constitution(principle("a"), priority_weights={"ethics": weight}),
    ):
        with pytest.raises(ValidationError):
            build()


@pytest.mark.parametrize("weight", [1e-6, 1e6])
def test_the_smallest_and_the_largest_weights_are_drawn_in_proportion(weight):
    drawable = constitution(
        *(principle(id, weight=weight) for id in "ab"),
        category_weights={"honesty": weight},
        priority_weights={"ethics": weight},
    ).for_comparison
    counts = Counter(draw_principle(drawable, "weighted", i).id for i in range(NUM_DRAWS))
    assert chisquare([counts[id] for id in "ab"], [NUM_DRAWS / 2] * 2).pvalue > 0.01


def test_weighted_draws_follow_priority_weights():
    drawable = constitution(
        principle("a", category="harm_avoidance"),
        principle("b", category="harm_avoidance", priority="helpfulness"),
        principle("c", category="helpfulness", weight=2),
        category_weights={"harm_avoidance": 2},
        priority_weights={"safety": 3},
    ).for_comparison
    assert [p.weight for p in drawable] == [6, 2, 2]
    counts = Counter(draw_principle(drawable, "weighted", i).id for i in range(NUM_DRAWS))
    assert chisquare([counts[id] for id in "abc"], [NUM_DRAWS * share for share in (0.6, 0.2, 0.2)]).pvalue > 0.01


def test_several_draws_are_weighted_ones_without_replacement():
    principles = [principle("a", weight=1), principle("b", weight=2), principle("c", weight=3)]
    pairs = Counter(tuple(p.id for p in draw_principles(principles, 2, "weighted", i)) for i in range(NUM_DRAWS))
    expected = {
        "ab": 1 / 6 * 2 / 5,
        "ac": 1 / 6 * 3 / 5,
        "ba": 2 / 6 / 4,
        "bc": 2 / 6 * 3 / 4,
        "ca": 1 / 6,
        "cb": 2 / 6,
    }
    observed = [pairs[tuple(order)] for order in expected]
    assert chisquare(observed, [NUM_DRAWS * share for share in expected.values()]).pvalue > 0.01


@given(ids=names, num=st.integers(1, 12), key=st.integers())
def test_several_are_different_and_begin_with_the_one(ids, num, key):
    principles = [principle(id) for id in ids]
    drawn = draw_principles(principles, num, "uniform", key)
    assert len({p.id for p in drawn}) == len(drawn) == min(num, len(ids))
    assert drawn[0] == draw_principle(principles, "uniform", key)


@given(ids=names, weight=weights, other=weights, num=st.integers(1, 3), key=st.integers())
def test_a_principle_changes_only_draws_that_it_takes_part_in(ids, weight, other, num, key):
    """Add, remove or reweight ``first``: the others keep their order, so a draw that contains it neither before nor
    after stays the same."""
    first, *rest = [principle(id) for id in ids]
    variants = [
        rest,
        [first.model_copy(update={"weight": weight}), *rest],
        [first.model_copy(update={"weight": other}), *rest],
    ]
    drawn = [[p.id for p in draw_principles(variant, num, "weighted", key)] for variant in variants]
    untouched = [ids for ids in drawn if first.id not in ids]
    assert all(ids == untouched[0] for ids in untouched)
    others = [[id for id in ids if id != first.id] for ids in drawn]
    assert all(ids == others[0][: len(ids)] for ids in others)


def test_rewording_a_principle_changes_no_draw():
    before = [principle("a"), principle("b")]
    after = [principle("a", comparison="Which is other?"), principle("b")]
    for i in range(100):
        assert draw_principle(before, "uniform", i).id == draw_principle(after, "uniform", i).id


def test_seeds_do_not_run_their_parts_together():
    assert seed_from("a", "bc") != seed_from("ab", "c")


# ------------------------------------------------------------------------------------------------ what it says
@pytest.mark.parametrize(
    ("category", "priority"),
    [("edge_cases", "safety"), ("honesty", "ethics"), ("thoughtfulness", "guidelines"), ("helpfulness", "helpfulness")],
)
def test_priority_follows_the_category_unless_given(category, priority):
    assert principle("a", category=category).priority == priority
    assert principle("a", category=category, priority="safety").priority == "safety"


def test_the_hash_is_of_what_principles_say_and_how_they_are_drawn():
    a, b = principle("a"), principle("b")
    same = [
        constitution(a, b),
        constitution(b, a),
        constitution(a, b, category_weights={"honesty": 1}, priority_weights={"ethics": 1}),
    ]
    same += [Constitution(name="other", version="2", principles=(a, b))]
    assert len({c.hash for c in same}) == 1
    changes = [{"comparison": "x"}, {"weight": 2}, {"priority": "safety"}, {"category": "edge_cases"}, {"source": "t"}]
    other = [constitution(principle("a", **change), b) for change in changes]
    other += [constitution(a), constitution(a, b, category_weights={"honesty": 2})]
    other += [constitution(a, b, priority_weights={"ethics": 2}), constitution(a, b, priority_weights={"safety": 2})]
    assert len({c.hash for c in (*same, *other)}) == 1 + len(other)


# ------------------------------------------------------------------------------------------------------ files
@pytest.mark.parametrize(
    ("principle", "told"),
    [
        ("{id: a, category: honesty, source: s}", "usable in no step"),
        ("{id: a, category: honesty, source: s, critique_request: x}", "go together"),
        ("{id: A B, category: honesty, source: s, comparison: x}", "principles.0.id: must be lower-case"),
        ("{id: a, category: nonsense, source: s, comparison: x}", "principles.0.category"),
        ("{id: a, category: honesty, source: s, comparison: x, extra: 1}", "principles.0.extra: unknown key"),
        ("{id: a, category: honesty, source: s, comparison: x, priority: first}", "principles.0.priority"),
        ("{id: a, category: honesty, source: s, comparison: x, weight: .inf}", "principles.0.weight"),
        ("{id: a, category: honesty, comparison: x}", "principles.0.source: is missing"),
        ("{id: a, category: honesty, source: s, comparison: x, comparison: y}", "comparison appears twice"),
    ],
)
def test_mistakes_name_file_and_field(tmp_path, principle, told):
    path = tmp_path / "c.yaml"
    path.write_text(f"name: n\nversion: '1'\nprinciples: [{principle}]\n")
    with pytest.raises(ConfigError, match=r"c\.yaml") as error:
        load_constitution(str(path))
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_merge_keys_and_a_key_that_only_holds_what_is_merged(tmp_path):
    path = tmp_path / "c.yaml"
    head = "name: n\nversion: '1'\nbase: &b {category: honesty, source: me}\nprinciples:\n"
    path.write_text(f"{head}- {{<<: *b, id: a, comparison: x}}\n- {{id: b, <<: *b, source: ours, comparison: y}}\n")
    one, two = load_constitution(str(path)).principles
    assert (one.category, one.source, two.category, two.source) == ("honesty", "me", "honesty", "ours")
    path.write_text(f"{head}- {{<<: *b, id: a, comparison: x, comparison: y}}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml, line 5: not YAML: key comparison appears twice"):
        load_constitution(str(path))
    path.write_text(f"{head}- {{category: honesty, source: me, id: a, comparison: x}}\n")
    with pytest.raises(ConfigError, match=r"base: unknown key"):
        load_constitution(str(path))


def test_a_category_weight_must_be_positive_and_of_a_category(tmp_path):
    path = tmp_path / "c.yaml"
    row = "{id: a, category: honesty, source: s, comparison: x}"
    path.write_text(f"name: n\nversion: '1'\ncategory_weights: {{honesty: 0, style: 1}}\nprinciples: [{row}]\n")
    with pytest.raises(ConfigError) as error:
        load_constitution(str(path))
    assert "category_weights.honesty" in str(error.value) and "category_weights.style" in str(error.value)


def test_repeated_ids_and_unknown_names(tmp_path):
    path = tmp_path / "c.yaml"
    row = "{id: a, category: honesty, source: s, comparison: x}"
    path.write_text(f"name: n\nversion: '1'\nprinciples: [{row}, {row}]\n")
    with pytest.raises(ConfigError, match="repeated: a"):
        load_constitution(str(path))
    with pytest.raises(ConfigError, match="sixteen_principles"):
        load_constitution("no_such")
