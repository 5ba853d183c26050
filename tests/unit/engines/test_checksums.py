"""Sums of bits: additive over parts, and different for every fault that a sync can have."""

import numpy as np
import pytest
import torch

from rlaif.engines.checksums import as_numpy, as_tensor, bit_sum
from rlaif.engines.served_weights import ReadBack, ServedPart, check_served
from rlaif.errors import WeightSyncError

DTYPES = [torch.float32, torch.bfloat16]


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 66, 63])  # whole words, or not
def test_the_sums_of_parts_add_up_however_a_tensor_is_cut(dtype, width):
    tensor = drawn(48, width, dtype=dtype)
    whole = bit_sum(tensor)
    for cut in (1, 16, 24):
        assert sum(bit_sum(tensor[row : row + cut], row) for row in range(0, 48, cut)) % 2**64 == whole
    for cut in (3, 16, 32, 33):
        parts = [bit_sum(tensor[:, place : place + cut], 0, place) for place in range(0, width, cut)]
        assert sum(parts) % 2**64 == whole
    assert bit_sum(torch.cat([drawn(5, width, dtype=dtype, seed=1), tensor])[5:]) == whole  # fused with another
    assert bit_sum(tensor.t().contiguous().t()) == whole
    vector = tensor.flatten()
    assert (bit_sum(vector[:100]) + bit_sum(vector[100:], 0, 100)) % 2**64 == bit_sum(vector)
    assert bit_sum(tensor.view(4, 12, width)) == whole


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bit_anywhere_changes_the_sum(dtype):
    tensor = drawn(6, 12, dtype=dtype)
    bits = tensor.view(torch.uint8)
    true = bit_sum(tensor)
    for row in range(6):
        for byte in range(bits.shape[1]):
            for bit in range(8):
                bits[row, byte] ^= 1 << bit
                assert bit_sum(tensor) != true
                bits[row, byte] ^= 1 << bit
    assert bit_sum(tensor) == true


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_changed_places_changes_the_sum(dtype):
    tensor = drawn(16, 64, dtype=dtype)
    others = [tensor.flip(0), tensor.flip(1), tensor.roll(1, 1), tensor.roll(4, 1), tensor.view(64, 16).t()]
    assert len({bit_sum(other.contiguous()) for other in [tensor, *others]}) == 6
    assert bit_sum(torch.zeros(16, 64, dtype=dtype)) == 0


def test_the_step_before_has_other_sums():
    """A step of 1e-6 changes a few bfloat16 numbers in a thousand."""
    before = drawn(256, 256, dtype=torch.float32) * 0.02
    for step in range(100):
        after = before + 1e-6 * torch.sign(drawn(256, 256, dtype=torch.float32, seed=step))
        assert bit_sum(before) != bit_sum(after)
        assert bit_sum(before.bfloat16()) != bit_sum(after.bfloat16())
        before = after


def test_bfloat16_travels_as_its_bits():
    tensor = drawn(3, 5)
    array = as_numpy(tensor)
    assert (array.dtype, array.nbytes) == (np.int16, tensor.nbytes)
    array.flags.writeable = False  # as in the object store
    back = as_tensor(array)
    assert back.dtype == torch.bfloat16 and torch.equal(back, tensor)
    assert torch.equal(as_tensor(as_numpy(tensor.float())), tensor.float())


# ------------------------------------------------------------------------------------- two tensor-parallel ranks
SENT = {"q": drawn(8, 16), "k": drawn(4, 16, seed=1), "down": drawn(8, 32, seed=2), "norm": drawn(16, seed=3)}
SUMS = {name: bit_sum(tensor) for name, tensor in SENT.items()}
SHAPES = {name: tuple(tensor.shape) for name, tensor in SENT.items()}


def part(name: str, tensor: torch.Tensor, row: int = 0, column: int = 0, expected: int | None = None) -> ServedPart:
    rows, columns = tensor.shape if tensor.ndim == 2 else (1, len(tensor))
    box = (row, column, rows, columns)
    return ServedPart(names=(name,), box=box, bits=bit_sum(tensor, row, column), expected=expected)


def served(tensors: dict[str, torch.Tensor], rank: int) -> list[ServedPart]:
    """Rows of q, columns of down, all of k (one head for two ranks) and of norm."""
    return [
        part("q", tensors["q"][4 * rank : 4 * rank + 4], row=4 * rank),
        part("k", tensors["k"]),
        part("down", tensors["down"][:, 16 * rank : 16 * rank + 16], column=16 * rank),
        part("norm", tensors["norm"]),
    ]


def test_two_ranks_serve_what_was_sent_together():
    check_served(SUMS, SHAPES, [ReadBack(parts=tuple(served(SENT, rank))) for rank in (0, 1)])


@pytest.mark.parametrize("name", SENT)
@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)])
def test_a_tensor_that_some_ranks_left_old_is_named(name, ranks):
    old = {**SENT, name: drawn(*SHAPES[name], seed=9)}
    read_back = [ReadBack(parts=tuple(served(old if rank in ranks else SENT, rank))) for rank in (0, 1)]
    with pytest.raises(WeightSyncError, match=rf"sent: {name} have other bits"):
        check_served(SUMS, SHAPES, read_back)


def test_a_rank_that_serves_nothing_new_and_slices_that_are_missing():
    first, second = (served(SENT, rank) for rank in (0, 1))
    with pytest.raises(WeightSyncError, match="down, q have other bits"):
        check_served(SUMS, SHAPES, [ReadBack(parts=tuple(first))])
    with pytest.raises(WeightSyncError, match="norm did not arrive"):
        check_served(SUMS, SHAPES, [ReadBack(parts=tuple(p for p in [*first, *second] if p.names != ("norm",)))])
    with pytest.raises(WeightSyncError, match=r"lm_head\.weight were not wholly loaded"):
        check_served(SUMS, SHAPES, [ReadBack(parts=(*first, *second), unloaded=("lm_head.weight",))])


def test_what_is_served_rounded_is_compared_with_what_was_sent_rounded():
    sent = drawn(4, 8, dtype=torch.float32)
    sums, shapes, rounded = {"w": bit_sum(sent)}, {"w": (4, 8)}, bit_sum(sent.bfloat16())
    check_served(sums, shapes, [ReadBack(parts=(part("w", sent.bfloat16(), expected=rounded),))])
    with pytest.raises(WeightSyncError, match="w have other bits"):
        check_served(sums, shapes, [ReadBack(parts=(part("w", sent.bfloat16() * 2, expected=rounded),))])
