"""Few-shot examples: the shipped sets, and the mistakes in a file."""

from pathlib import Path

import pytest

from rlaif.errors import ConfigError
from rlaif.prompting.examples import LabelExample, RevisionExample, read_examples

SHIPPED = Path(__file__).parents[3] / "configs" / "examples"


def test_shipped_examples_favour_no_slot():
    examples = read_examples(LabelExample, str(SHIPPED / "labels.yaml"), field="labelling.examples")
    assert [e.preferred for e in examples].count("A") == len(examples) / 2
    assert all(e.reasoning for e in examples)


def test_shipped_revisions_are_whole():
    examples = read_examples(RevisionExample, str(SHIPPED / "revisions.yaml"), field="critique_revision.examples")
    assert len(examples) >= 2 and len({e.prompt for e in examples}) == len(examples)


def test_mistakes_name_file_place_and_field(tmp_path):
    path = tmp_path / "examples.yaml"
    path.write_text("- {prompt: q, comparison: which, answer_a: x, preferred: C, colour: red}\n")
    with pytest.raises(ConfigError) as raised:
        read_examples(LabelExample, str(path), field="labelling.examples")
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"labelling.examples={path}: 0.") for line in lines)
    assert any("answer_b: is missing" in line for line in lines)
    assert any("preferred: must be one of A or B, not 'C'" in line for line in lines)
    assert any("colour: unknown key" in line for line in lines)
