"""What the benchmark of a GPU counts and reports; a dry run reports no figure."""

from benchmarks.gpu import FULL, measure, with_mfu

LLAMA_8B = 8_030_261_248  #: parameters of Llama-3.1-8B, by its model card's weights


def test_the_architecture_is_that_of_an_8b_model() -> None:
    shape = FULL.shape
    norms, embedding = (2 * 32 + 1) * shape.hidden, shape.hidden * shape.vocabulary
    assert shape.parameters(shape.layers["served"]) + norms + embedding == LLAMA_8B


def test_mfu_is_a_share_of_the_peak_and_unknown_for_unknown_cards() -> None:
    assert with_mfu({"operations_per_s": 4e14}, 1e15)["mfu"] == 0.4
    assert with_mfu({"operations_per_s": 4e14}, None)["mfu"] is None
    assert "mfu" not in with_mfu({"step_s": 1.0}, 1e15)


async def passing() -> dict[str, float]:
    return {"tokens_per_s": 123.0}


async def failing() -> dict[str, float]:
    raise RuntimeError("out of memory")


async def test_a_dry_run_names_figures_and_reports_none() -> None:
    result = await measure({"generation": passing}, dry=True)
    assert set(result["parts"]["generation"]) == {"rehearsed_in_s", "would_report"}
    assert result["parts"]["generation"]["would_report"] == ["tokens_per_s"]


async def test_a_part_that_fails_is_named_and_the_others_go_on() -> None:
    result = await measure({"step": failing, "generation": passing}, dry=False)
    assert result["failures"] == {"step": "RuntimeError: out of memory"}
    assert result["parts"]["generation"]["tokens_per_s"] == 123.0
