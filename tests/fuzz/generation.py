"""How the long targets generate: many inputs, none of them kept or made smaller."""

from hypothesis import HealthCheck, Phase, settings


def inputs(num: int) -> settings:
    return settings(
        max_examples=num,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
