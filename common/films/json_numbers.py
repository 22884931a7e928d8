"""Numbers of an annotation in JSON, which may hold anything."""

from __future__ import annotations

from typing import Any


def whole(digits: str) -> int:
    """A whole number as JSON spells it, of at most 15 digits: longer ones cost time and are no pixels.

    Raises:
        ValueError: It is longer.
    """
    if len(digits) > 15:
        raise ValueError("too many digits")
    return int(digits)


def length(value: Any) -> int:
    """A length in pixels: a whole number, also one spelt 2500.0.

    Raises:
        TypeError, ValueError, OverflowError: It is something else.
    """
    if int(number(value)) != value or value > 1e9:
        raise ValueError("not a length in pixels")
    return int(value)


def number(value: Any) -> float:
    """A number of a JSON file, as it is: true, false and text are none.

    Raises:
        TypeError: It is no number.
    """
    if type(value) not in (int, float):
        raise TypeError("not a number")
    return value


def corner(value: Any) -> tuple[float, float]:
    """A list of two numbers.

    Raises:
        TypeError, ValueError: It is something else.
    """
    x, y = value
    return number(x), number(y)
