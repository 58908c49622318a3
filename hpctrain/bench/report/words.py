"""How figures are written in the report: alike in every file and on the terminal."""

from __future__ import annotations

UNKNOWN = "unknown"
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SECONDS = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs"))


def say_number(value: float | None) -> str:
    """Return about three digits, thousands parted.

    >>> say_number(12345.6), say_number(0.12345), say_number(12.3456), say_number(None)
    ('12,346', '0.123', '12.3', 'unknown')
    """
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def say_percent(part: float | None, digits: int = 1) -> str:
    """Return a part of 1 in percent.

    >>> say_percent(0.6135), say_percent(None)
    ('61.4 %', 'unknown')
    """
    return UNKNOWN if part is None else f"{100 * part:.{digits}f} %"


def say_points(points: float) -> str:
    """Return percent points; a gain has a minus.

    >>> say_points(31.04), say_points(-0.26), say_points(-0.01)
    ('31.0', '-0.3', '0.0')
    """
    rounded = f"{points:.1f}"
    return "0.0" if rounded == "-0.0" else rounded


def say_seconds(seconds: float | None) -> str:
    """Return a duration in the unit that suits it.

    >>> say_seconds(1.5), say_seconds(0.0123), say_seconds(4.2e-05)
    ('1.5 s', '12.3 ms', '42 µs')
    """
    if not seconds:
        return UNKNOWN if seconds is None else "0 s"
    _, factor, unit = next(row for row in _SECONDS if abs(seconds) >= row[0])
    return f"{say_number(seconds * factor)} {unit}"


def say_bytes(bytes_: float | None) -> str:
    """Return bytes in powers of 1000.

    >>> say_bytes(6_543_210), say_bytes(0), say_bytes(None)
    ('6.54 MB', '0 B', 'unknown')
    """
    if bytes_ is None:
        return UNKNOWN
    for size, unit in _BYTES:
        if bytes_ >= size:
            return f"{say_number(bytes_ / size)} {unit}"
    return f"{bytes_:.0f} B"


def say_message(bytes_: int) -> str:
    """Return the size of a message, which is a power of two.

    >>> say_message(4), say_message(4096), say_message(64 << 20)
    ('4 B', '4 KiB', '64 MiB')
    """
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if bytes_ >= 1 << power:
            return f"{bytes_ / (1 << power):.4g} {unit}"
    return f"{bytes_} B"


def say_usd(usd: float | None) -> str:
    """Return dollars.

    >>> say_usd(0.04216), say_usd(12.3)
    ('$0.0422', '$12.30')
    """
    if usd is None:
        return UNKNOWN
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.3g}"


def say_ranks(np: int, nodes: int) -> str:
    """Return a size in words.

    >>> say_ranks(1, 1), say_ranks(4, 2)
    ('1 rank', '4 ranks on 2 nodes')
    """
    ranks = f"{np} rank{'' if np == 1 else 's'}"
    return ranks if nodes == 1 else f"{ranks} on {nodes} nodes"


def say_list(words: list[str]) -> str:
    """Return words as a list in a sentence.

    >>> say_list(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
