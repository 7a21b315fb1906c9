"""What ``model.json`` and ``baseline.json`` say, read as a stranger's: JSON, strict and bounded."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_JSON_BYTES = 1 << 21  # a fifth of it is the most that the largest ladder takes
MAX_DEPTH = 32
# what using values of the wrong shape can raise before a check of ours does
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)
_MOST_DIGITS = 20  # of 2^64, more than any number here


def parse_json(text: bytes | str, *, finite: bool = True) -> Any:
    """Plain values of UTF-8 JSON.

    Args:
        text: as long as the caller is ready to read; memory is at most some 25 times that.
        finite: whether NaN and infinity are refused.

    Raises:
        ValueError: not JSON or not UTF-8, deeper than MAX_DEPTH, whole numbers beyond 64 bits, a name that
        an object has twice.
    """

    def constant(name: str) -> float:
        if finite:
            raise ValueError(f"{name} is no number")
        return float(name)

    def real(digits: str) -> float:
        value = float(digits)
        if finite and not math.isfinite(value):
            raise ValueError(f"a number {digits:.20} beyond all bounds")
        return value

    try:
        value = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            object_pairs_hook=_object, parse_constant=constant, parse_float=real, parse_int=_whole,
        )  # fmt: skip
    except RecursionError:
        raise ValueError(f"deeper than {MAX_DEPTH} levels") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, dict | list)]
        if not level:
            return value
    raise ValueError(f"deeper than {MAX_DEPTH} levels")


def printable(text: object, most: int | None = None) -> str:
    """``text`` in one line for a terminal: at most ``most`` characters, "?" for what cannot be printed."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:most])


def _parts(whole: Any) -> Any:
    if isinstance(whole, dict):
        return whole.values()
    return whole if isinstance(whole, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has a name twice")
    return fields


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS + 1 or abs(value := int(digits)) >> 64:
        raise ValueError(f"a whole number {digits:.20} beyond 64 bits")
    return value
