"""What all sections of the configuration have in common, and the kinds of their values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
#: Larger numbers are slips; estimates and schedules compute with them, and floats end.
LARGEST_COUNT, LARGEST_AMOUNT = 10**12, 1e30
Positive = Annotated[float, Field(gt=0, le=LARGEST_AMOUNT)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST_AMOUNT)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]  #: 30 years
Units = Annotated[int, Field(ge=1, le=100_000)]  #: engines, ranks, GPUs, threads: what a machine has so many of
Share = Annotated[float, Field(ge=0, le=100_000)]  #: CPUs or GPUs of one engine or rank
Gibibytes = Annotated[float, Field(gt=0, le=1e9)]  #: a billion are an exbibyte
Dtype = Literal["float32", "bfloat16"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, str_min_length=1)
