import pytest

from rlaif.constitution import draw_principle, load_constitution, seed_from
from rlaif.errors import ConfigError


def test_the_shipped_set_mirrors_the_papers_counts():
    constitution = load_constitution("sixteen_principles")
    assert len(constitution.for_revision) == 16
    assert len(constitution.for_comparison) == 16
    assert len({p.category for p in constitution.principles}) == 7


def test_draws_depend_on_their_key_alone():
    principles = load_constitution("sixteen_principles").principles
    drawn = [draw_principle(principles, "uniform", 0, f"row-{i}", 0).id for i in range(200)]
    assert drawn == [draw_principle(principles, "uniform", 0, f"row-{i}", 0).id for i in range(200)]
    assert len(set(drawn)) == 16


def test_weighted_draws_follow_the_weights():
    principles = load_constitution("sixteen_principles").principles
    drawn = [draw_principle(principles, "weighted", i).weight for i in range(2000)]
    expected = sum(p.weight**2 for p in principles) / sum(p.weight for p in principles)
    assert sum(drawn) / len(drawn) == pytest.approx(expected, rel=0.05)


def test_seeds_do_not_run_their_parts_together():
    assert seed_from("a", "bc") != seed_from("ab", "c")


def test_hash_is_of_content(tmp_path):
    text = "name: n\nversion: '1'\nprinciples: [{id: a, category: honesty, source: s, comparison: 'Which is truer?'}]\n"
    one, two, three = (tmp_path / f"{i}.yaml" for i in range(3))
    one.write_text(text)
    two.write_text(text.replace("name: n", "name: other"))
    three.write_text(text.replace("truer", "better"))
    hashes = [load_constitution(str(p)).hash for p in (one, two, three)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("principle", "told"),
    [
        ("{id: a, category: honesty, source: s}", "usable in no step"),
        ("{id: a, category: honesty, source: s, critique_request: x}", "go together"),
        ("{id: A B, category: honesty, source: s, comparison: x}", "principles.0.id"),
        ("{id: a, category: nonsense, source: s, comparison: x}", "principles.0.category"),
        ("{id: a, category: honesty, source: s, comparison: x, extra: 1}", "principles.0.extra"),
    ],
)
def test_mistakes_name_file_and_field(tmp_path, principle, told):
    path = tmp_path / "c.yaml"
    path.write_text(f"name: n\nversion: '1'\nprinciples: [{principle}]\n")
    with pytest.raises(ConfigError, match=r"c\.yaml") as error:
        load_constitution(str(path))
    assert told in str(error.value)


def test_repeated_ids_and_unknown_names(tmp_path):
    path = tmp_path / "c.yaml"
    row = "{id: a, category: honesty, source: s, comparison: x}"
    path.write_text(f"name: n\nversion: '1'\nprinciples: [{row}, {row}]\n")
    with pytest.raises(ConfigError, match="repeated: a"):
        load_constitution(str(path))
    with pytest.raises(ConfigError, match="sixteen_principles"):
        load_constitution("no_such")
