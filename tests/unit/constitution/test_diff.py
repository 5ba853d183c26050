import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.constitution.diff import Change, diff
from rlaif.constitution.principles import Constitution, draw_principles, load_constitution

OLD = load_constitution("nine_points")


def edited(*, drop: tuple[str, ...] = (), category_weights=None, **fields) -> Constitution:
    """OLD without the principles in ``drop``, and with the changes ``ID={field: value}``."""
    tree = OLD.model_dump()
    tree["principles"] = [p | fields.get(p["id"], {}) for p in tree["principles"] if p["id"] not in drop]
    return Constitution.model_validate(
        tree | ({} if category_weights is None else {"category_weights": category_weights})
    )


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


def test_a_comparison_given_up_leaves():
    found = diff(OLD, edited(safe={"comparison": None}))
    assert found.left == ("safe",) and not found.reworded and not found.removed


@pytest.mark.parametrize(
    ("new", "outdated"),
    [
        (OLD, False),
        (edited(safe={"comparison": "Which is safer?"}), True),
        (edited(wise={"comparison": "Which is wisest?"}), False),
        (edited(safe={"revision_request": "Other.", "source": "t", "priority": "ethics"}), False),
    ],
)
def test_a_label_is_outdated_by_its_own_comparison_alone(new, outdated):
    assert diff(OLD, new).outdates(["safe"], ["safe"]) == outdated


def test_a_label_is_outdated_when_others_are_drawn():
    found = diff(OLD, OLD)
    assert found.outdates(["safe"], ["wise"]) and found.outdates(["safe"], ["safe", "wise"])
    assert not found.outdates(["safe", "wise"], ["wise", "safe"])
    assert not found.outdates([], ["safe"])


@given(num=st.integers(1, 3), weight=st.floats(0.1, 10), row=st.integers(0, 10_000))
def test_labels_without_the_edited_principle_stay(num, weight, row):
    """Reword, reweight or remove ``safe``: a label is outdated if and only if ``safe`` was or is drawn for it."""

    def drawn(constitution: Constitution) -> list[str]:
        return [p.id for p in draw_principles(constitution.for_comparison, num, "weighted", 0, row)]

    for new in (edited(safe={"comparison": "Which is safer?", "weight": weight}), edited(drop=("safe",))):
        outdated = diff(OLD, new).outdates(drawn(OLD), drawn(new))
        assert outdated == ("safe" in drawn(OLD) or "safe" in drawn(new))


@given(st.lists(st.sampled_from(["weight", "priority", "category", "source", "comparison"]), unique=True))
def test_empty_exactly_when_the_hashes_are_equal(fields):
    values = {"weight": 2, "priority": "helpfulness", "category": "honesty", "source": "t", "comparison": "u"}
    new = edited(safe={field: values[field] for field in fields})
    assert diff(OLD, new).empty == (OLD.hash == new.hash) == (not fields)
