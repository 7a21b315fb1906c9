"""The slopes a curve is asked for at, as people type them."""

import math

from rcccodec.errors import InputError

MAX_SLOPES = 1000


def parse_slopes(text: str) -> tuple[float, ...]:
    """Slopes beta in nats per unit of distortion, rising, each to six digits.

    Args:
        text: ``0.5``, ``0.1,0.5,2``, ``0.1:10:log8`` (eight, even in the logarithm) or ``0.1:10:lin5``.

    Raises:
        InputError: not of these forms, a slope that is not positive and finite, or more than 1000.
    """
    parts = text.split(":")
    if len(parts) == 1:
        slopes = [_slope(text, word) for word in text.split(",")]
    elif len(parts) == 3 and parts[2][:3] in ("log", "lin") and parts[2][3:].isdecimal():
        low, high, count = _slope(text, parts[0]), _slope(text, parts[1]), int(parts[2][3:])
        if not (2 <= count <= MAX_SLOPES and low < high):
            raise InputError(f"slopes {text!r}: LOW:HIGH:log8 needs LOW < HIGH and 2 to {MAX_SLOPES} slopes")
        steps = [i / (count - 1) for i in range(count)]
        if parts[2].startswith("log"):
            slopes = [low * (high / low) ** step for step in steps]
        else:
            slopes = [low + (high - low) * step for step in steps]
    else:
        raise InputError(f"slopes {text!r}: expected 0.5 or 0.1,0.5,2 or 0.1:10:log8 or 0.1:10:lin5")
    return tuple(sorted({float(f"{slope:.6g}") for slope in slopes}))


def _slope(text: str, word: str) -> float:
    try:
        slope = float(word)
    except ValueError:
        raise InputError(f"slopes {text!r}: {word!r} is not a number") from None
    if not 0 < slope < math.inf:
        raise InputError(f"slopes {text!r}: a slope must be positive and finite, {word} is not")
    return slope
