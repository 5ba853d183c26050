"""What is derived from the table of algorithms: the values of ``reinforcement.algorithm`` and the smallest group."""

import pytest

from rlaif.algorithms.advantage import ADVANTAGES
from rlaif.config.algorithms import ALGORITHMS
from rlaif.config.files import load_config
from rlaif.errors import ConfigError


def config_with(tmp_path, **reinforcement):
    path = tmp_path / "config.yaml"
    path.write_text("reinforcement:\n" + "".join(f"  {key}: {value}\n" for key, value in reinforcement.items()))
    return load_config(str(path))


def test_each_algorithm_has_its_advantages():
    assert set(ALGORITHMS) == set(ADVANTAGES)


def test_another_algorithm_is_refused_with_the_names_of_all(tmp_path):
    *names, last = ALGORITHMS
    rule = f"must be one of {', '.join(names)} or {last}; choose"
    with pytest.raises(ConfigError, match=rf"reinforcement\.algorithm=magic: {rule}"):
        config_with(tmp_path, algorithm="magic")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_groups_that_are_too_small_are_refused(tmp_path, name):
    smallest = ALGORITHMS[name].min_group
    assert config_with(tmp_path, algorithm=name, group_size=smallest).reinforcement.algorithm == name
    if smallest > 1:
        with pytest.raises(ConfigError, match=f"so groups hold at least {smallest}; raise reinforcement.group_size"):
            config_with(tmp_path, algorithm=name, group_size=smallest - 1)
