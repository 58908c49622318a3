"""The ranges that settings are checked against, as types that msgspec understands.

Apart from the schema, because a launch that is given no setting need not import msgspec.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

_LARGEST = sys.float_info.max  # infinity is no setting
Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
NonNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
Part = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0, lt=1)]

__all__ = [
    "Count",
    "CountOrZero",
    "Decay",
    "Literal",
    "Mapping",
    "NonNegative",
    "Part",
    "Positive",
]
