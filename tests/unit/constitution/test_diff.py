from hypothesis import given
from hypothesis import strategies as st

from rlaif.constitution.diff import Change, diff
from rlaif.constitution.principles import Constitution, load_constitution

OLD = load_constitution("nine_points")


def edited(*, drop: tuple[str, ...] = (), category_weights=None, priority_weights=None, **fields) -> Constitution:
    """OLD without the principles in ``drop``, and with the changes ``ID={field: value}``."""
    tree = OLD.model_dump()
    tree["principles"] = [p | fields.get(p["id"], {}) for p in tree["principles"] if p["id"] not in drop]
    weights = {"category_weights": category_weights, "priority_weights": priority_weights}
    return Constitution.model_validate(tree | {name: given for name, given in weights.items() if given is not None})


def test_nothing_changed():
    assert diff(OLD, OLD).empty
    assert diff(OLD, OLD.model_copy(update={"name": "other", "principles": OLD.principles[::-1]})).empty


def test_fields_added_and_removed():
    found = diff(OLD, edited(drop=("wise",), safe={"comparison": "Which is safer?", "weight": 2}))
    assert [p.id for p in found.removed] == ["wise"] and not found.added
    old = OLD.principles[0]
    assert found.changed == (
        Change(of="safe", field="weight", old=1.0, new=2.0),
        Change(of="safe", field="comparison", old=old.comparison, new="Which is safer?"),
    )
    assert (found.left, found.reworded, found.reweighted, found.joined) == (("wise",), ("safe",), ("safe",), ())
    back = diff(edited(drop=("wise",)), OLD)
    assert [p.id for p in back.added] == ["wise"] and back.joined == ("wise",)


def test_a_category_weight_reweights_its_principles():
    found = diff(OLD, edited(category_weights={"harm_avoidance": 2, "childrens_safety": 1}))
    assert found.category_weights == (Change(of="childrens_safety", field="weight", old=2.0, new=1.0),)
    assert found.reweighted == ("child_friendly",) and not found.changed


def test_a_priority_moves_a_principle_and_its_weight_reweights_it():
    found = diff(OLD, edited(safe={"priority": "ethics"}))
    assert found.moved == ("safe",) and not found.reweighted and not found.reworded
    weighted = edited(priority_weights={"ethics": 2.0, "safety": 1.0})
    found = diff(OLD, weighted)
    assert found.priority_weights == (Change(of="ethics", field="weight", old=1.0, new=2.0),)
    assert set(found.reweighted) == {p.id for p in OLD.for_comparison if p.priority == "ethics"} and not found.empty
    moved = edited(priority_weights={"ethics": 2.0}, safe={"priority": "ethics"})
    assert "safe" in diff(weighted, moved).reweighted


def test_a_comparison_given_up_leaves():
    found = diff(OLD, edited(safe={"comparison": None}))
    assert found.left == ("safe",) and not found.reworded and not found.removed


@given(st.lists(st.sampled_from(["weight", "priority", "category", "source", "comparison"]), unique=True))
def test_empty_exactly_when_the_hashes_are_equal(fields):
    values = {"weight": 2, "priority": "helpfulness", "category": "honesty", "source": "t", "comparison": "u"}
    new = edited(safe={field: values[field] for field in fields})
    assert diff(OLD, new).empty == (OLD.hash == new.hash) == (not fields)
