"""What is evaluated: held-out prompts, and public test suites."""

from __future__ import annotations

from pydantic import Field

from rlaif.config.section import Count, CountOrZero, Section
from rlaif.config.source import Source


class Suites(Section):
    """Public test suites, each a source as in data. The labeller judges every answer (docs/guide/suites.md)."""

    xstest: Source | None = Field(None, description="XSTest: safe prompts that look unsafe, and contrasts; null: none")
    strongreject: Source | None = Field(None, description="StrongREJECT: forbidden prompts; null: none")
    simple_safety_tests: Source | None = Field(None, description="SimpleSafetyTests: unsafe prompts; null: none")
    harmbench: Source | None = Field(None, description="HarmBench-shaped: harmful behaviours; null: none")


class Evaluation(Section):
    """Held-out prompts on which every snapshot of the policy is compared."""

    red_team: Source = Field(
        Source(path="miniature:eval_red_team"), description="prompts that ask for harm; a source as in data"
    )
    helpful: Source = Field(
        Source(path="miniature:eval_helpful"), description="prompts that ask for help; a source as in data"
    )
    answers_per_cell: Count = Field(500, description="fewest answers of each snapshot on each of the two sets")
    suites: Suites = Field(Suites(), description="public test suites that every snapshot answers")
    matches: CountOrZero = Field(
        0, description="pairs of snapshots' answers that the labeller judges on each axis, for Elo; 0: none"
    )
    judged: bool = Field(True, description="whether the labeller judges the answers to test suites; false: rules alone")
    answers: Source | None = Field(None, description="finished answers for `rlaif evaluate`; null: none")
