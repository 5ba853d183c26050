"""What may change when a run is resumed are settings that there are."""

from rlaif.config.contradictions import flatten
from rlaif.config.resuming import MAY_CHANGE, OF_POOLS, OF_TRAINERS, may_change
from rlaif.config.schema import Config, PoolSettings
from rlaif.config.trainer import Trainer


def test_every_name_is_a_setting_or_a_section():
    keys = set(flatten(Config()))
    sections = {key.rpartition(".")[0] for key in keys}
    sections |= {section.rpartition(".")[0] for section in sections}
    roles_without = {"generator.price_per_hour", "scorer.price_per_hour"}
    assert MAY_CHANGE - keys - sections == roles_without


def test_every_setting_of_pools_and_trainers_was_decided_on():
    """A new one is listed where it may change, or here."""
    fixed = set(["engine", "dtype", "max_length", "on_new_weights", "scripted"])
    assert set(PoolSettings.model_fields) - set(OF_POOLS) == fixed
    assert set(Trainer.model_fields) - set(OF_TRAINERS) == set(
        ["engine", "dtype", "grad_accum_dtype", "max_skipped_steps", "scripted"]
    )


def test_what_begins_like_a_changeable_setting_may_not_change():
    assert may_change("generator.max") and not may_change("generator.max_length")
    assert may_change("resources.node.gpu") and may_change("labeller.autoscale.enabled")
    assert not may_change("reinforcement") and not may_change("seed")
