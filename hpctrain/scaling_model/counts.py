"""Numbers of nodes as people write them: ``2,4,8,...,1024``."""

from __future__ import annotations

from hpctrain.errors import ConfigError

DOTS = ("...", "…", "..")
MOST = 1 << 20


def parse_counts(text: str, where: str = "--nodes") -> tuple[int, ...]:
    """Return the numbers; dots go on by the factor before them, by 2 where there is none.

    Raises:
        ConfigError: it is no such list, or not ascending.

    >>> parse_counts("2,4,8,...,64")
    (2, 4, 8, 16, 32, 64)
    >>> parse_counts("1,…,6"), parse_counts("1,3,..,27"), parse_counts("5")
    ((1, 2, 4, 6), (1, 3, 9, 27), (5,))
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    numbers: list[int] = []
    for place, word in enumerate(words):
        if word in DOTS:
            last = _number(words[place + 1]) if place + 1 < len(words) else None
            if not numbers or last is None:
                raise _error(where, text)
            before = numbers[-2:]
            factor = before[1] / before[0] if len(before) == 2 else 2.0
            if factor <= 1:
                raise _error(where, text)
            while numbers[-1] * factor < last:
                numbers.append(max(numbers[-1] + 1, round(numbers[-1] * factor)))
            continue
        number = _number(word)
        if number is None or (numbers and number <= numbers[-1]):
            raise _error(where, text)
        numbers.append(number)
    if not numbers:
        raise _error(where, text)
    return tuple(numbers)


def _number(word: str) -> int | None:
    number = int(word) if word.isascii() and word.isdigit() else 0
    return number if 1 <= number <= MOST else None


def _error(where: str, text: str) -> ConfigError:
    return ConfigError(
        f"{where}: no list of numbers, got '{text}'; expected ascending numbers from 1 to {MOST}, "
        "with dots for what is between. Write e.g. 2,4,8,...,1024."
    )
