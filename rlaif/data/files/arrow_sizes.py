"""How large the values of an Arrow array are, one by one, without making them.

An array may hold a text once and mean it a million times (dictionaries, runs, views); a file of a few bytes then stands
for any amount of memory. Where it is not known how often a value is meant, more is returned, never less.
"""

from __future__ import annotations

from typing import Any

_Array = Any  #: a pyarrow.Array


def num_bytes(array: _Array) -> int:
    """The bytes of all values of ``array``, each counted as often as it is meant, and none as less than one."""
    return max(len(array), _num_bytes(array))


def _num_bytes(array: _Array) -> int:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        return _of_dictionary(array)
    if pa.types.is_run_end_encoded(kind):
        return len(array) * num_bytes(array.values)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return len(array) * num_bytes(array.values)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return len(array) * int(array.nbytes)
    if pa.types.is_map(kind):
        return num_bytes(array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return num_bytes(array.flatten())
    if pa.types.is_struct(kind):
        return sum(map(num_bytes, array.flatten()))
    return int(num_bytes(array.storage) if isinstance(array, pa.ExtensionArray) else array.nbytes)


def _of_dictionary(array: _Array) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = array.dictionary
    if texts.type in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return int(pc.sum(pc.binary_length(texts).take(array.indices)).as_py() or 0)
    return len(array) * num_bytes(texts)
