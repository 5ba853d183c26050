"""Sums over the bits of a tensor that come out the same however an engine cuts or joins it.

    sum of bits = sum over rows r and columns c of  a(r) * b(c) * bits[r, c]   modulo 2**64

A tensor is read as a matrix: all its dimensions but the last are rows, a vector is one row. ``bits`` are an element's
own, as an unsigned integer; ``a`` and ``b`` are fixed odd numbers that look random. So

- a part of a tensor (tensor-parallel ranks hold slices) has a sum of its own, once it is known where the part begins,
  and the sums of all parts add up to that of the whole: nothing has to be gathered;
- one bit that differs always changes the sum, because odd numbers have inverses; several at once, as in another step's
  weights, go unnoticed with a probability of about 2**-64. It is larger only where all of them are the upper bits of
  their groups of eight bytes: 2**-16 for every fourth column of bfloat16, and two signs there cancel out;
- elements that changed places change it, too.

Eight bytes are multiplied at a time: an element's b(c) is that of its group of eight bytes, shifted by its place there.
"""

from __future__ import annotations

import warnings
from math import prod

import numpy as np
import torch
from torch import Tensor

WORD = 8  #: bytes that are multiplied at a time
CHUNK_WORDS = 2**23  #: of rows that are multiplied at once where that needs memory
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_numpy(tensor: Tensor) -> np.ndarray:
    """As weights travel: in their own dtype. NumPy has no bfloat16, so int16 holds its bits; no model has int16."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.numpy()


def as_tensor(array: np.ndarray) -> Tensor:
    """The inverse of ``as_numpy``; shares memory with ``array``, which must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor


def bit_sum(part: Tensor, first_row: int = 0, first_column: int = 0) -> int:
    """The sum of the bits of ``part``, in 0 .. 2**64 - 1, as the part of a tensor that begins there."""
    matrix = part.detach().reshape(prod(part.shape[:-1]), part.shape[-1] if part.ndim else 1)
    size = matrix.element_size()
    columns = torch.arange(first_column, first_column + matrix.shape[1], device=part.device)
    if _is_aligned(matrix, first_column):
        matrix = matrix.view(torch.int64)
        factors = _odd(columns[:: WORD // size] // (WORD // size), seed=1)
    else:  # rare, and small as a rule: element by element
        matrix = matrix.view(_BITS[size])
        factors = _odd(columns // (WORD // size), seed=1) << (8 * size * (columns % (WORD // size)))
    sums = [_row_sums(rows, size, factors) for rows in matrix.split(max(1, CHUNK_WORDS // max(1, matrix.shape[1])))]
    rows = torch.arange(first_row, first_row + matrix.shape[0], device=part.device)
    return int((torch.cat(sums) * _odd(rows, seed=2)).sum().item()) % 2**64


def _is_aligned(matrix: Tensor, first_column: int) -> bool:
    """Whether its rows are whole words, in memory and in the tensor that it is a part of."""
    size = matrix.element_size()
    places = (first_column, matrix.shape[1], matrix.stride(0), matrix.storage_offset())
    return matrix.stride(1) == 1 and all(place * size % WORD == 0 for place in places)


def _row_sums(bits: Tensor, size: int, factors: Tensor) -> Tensor:
    if bits.dtype != torch.int64:
        bits = bits.long() & (2 ** (8 * size) - 1)
    if bits.is_cpu:  # faster than a copy, while a product takes ten times as long
        return torch.mv(bits, factors)
    return (bits * factors).sum(1)  # there are no matrices of integers on GPUs


def _odd(numbers: Tensor, seed: int) -> Tensor:
    """Odd numbers that look random, one for each of ``numbers``: the finalizer of splitmix64 (Steele et al. 2014)."""
    mixed = (numbers + (seed << 32)) * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31) | 1


def _shifted(numbers: Tensor, places: int) -> Tensor:
    """To the right, as if they had no sign."""
    return (numbers >> places) & (2 ** (64 - places) - 1)
