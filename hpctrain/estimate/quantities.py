"""Numbers as people write them: 100B tokens, 48h, $5000, 45%; and back."""

from __future__ import annotations

import math
import re

from hpctrain.errors import ConfigError, raise_all
from hpctrain.scaling_model.links import Link, parse_link

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_COUNT = re.compile(
    r"(\d[\d_,]*(?:\.\d+)?(?:e\d+)?)\s*([kmbt]?)(?:\s*tok(?:en)?s?)?", re.IGNORECASE
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[smhdw])", re.IGNORECASE)
_MONEY = re.compile(r"\$?\s*(\d[\d_,]*(?:\.\d+)?)\s*([km]?)\s*(?:usd|\$)?", re.IGNORECASE)
# Beyond these nobody means it, and arithmetic would run over.
MOST_THINGS, LONGEST_S, MOST_USD = 1e18, 3.2e9, 1e15  # seconds: a hundred years
SHORTEST_S, LEAST_SHARE = 1e-3, 1e-4
SLOWEST_LINK, FASTEST_LINK, LONGEST_LATENCY_S = 1e3, 1e14, 60.0  # bytes a second
_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)")


def parse_count(text: str, where: str) -> int:
    """Return a whole number of things, such as tokens.

    >>> parse_count("100B", "--tokens"), parse_count("1.3T", "--tokens"), parse_count("524_288", "")
    (100000000000, 1300000000000, 524288)

    Raises:
        ConfigError: it is none, below 1, or above 1e18.
    """
    match = _COUNT.fullmatch(text.strip())
    value = 0.0
    if match:
        number = match[1].replace("_", "").replace(",", "")
        value = float(number) * _COUNTS[match[2].lower()]
    if not 0.5 < value <= MOST_THINGS:
        wrong = "too large" if value > MOST_THINGS else "no number"
        raise ConfigError(
            f"{where}: {wrong}, got '{shorten(text)}'; expected 1 to {MOST_THINGS:g}, with K, M, "
            "B (1e9) or T (1e12) behind it. Write e.g. 100B."
        )
    return round(value)


def check_count(value: int | None, where: str, most: int) -> int | None:
    """Return a number of GPUs or the like.

    Raises:
        ConfigError: nobody has so many.
    """
    if value is not None and value > most:
        raise ConfigError(
            f"{where}: too large, got {shorten(str(value))}; expected 1 to {most:,}. Take fewer."
        )
    return value


def shorten(text: str) -> str:
    """Return what was typed, cut where it is longer than anybody reads.

    >>> shorten("9" * 400)
    '999999999999999999999999999999…'
    """
    return text if len(text) <= 30 else f"{text[:30]}…"


def parse_duration_s(text: str, where: str) -> float:
    """Return seconds.

    >>> parse_duration_s("48h", "--deadline") == parse_duration_s("2d", "--deadline")
    True
    >>> parse_duration_s("1d 12h", ""), parse_duration_s("30min", "")
    (129600.0, 1800.0)

    Raises:
        ConfigError: it is no time above 0, or over a hundred years.
    """
    rest = _PART.sub("", text).strip()
    seconds = sum(float(value) * _SECONDS[unit.lower()] for value, unit in _PART.findall(text))
    if rest or not SHORTEST_S <= seconds <= LONGEST_S:
        wrong = "no time" if rest or seconds < SHORTEST_S else "too long"
        raise ConfigError(
            f"{where}: {wrong}, got '{shorten(text)}'; expected a number above 0 with s, min, h, d "
            "or w, of a hundred years at most. Write e.g. 48h, 2d or 1d12h."
        )
    return seconds


def parse_usd(text: str, where: str, *, may_be_zero: bool = False) -> float:
    """Return US dollars.

    >>> parse_usd("5000", "--budget"), parse_usd("$2.5k", "--budget")
    (5000.0, 2500.0)

    Raises:
        ConfigError: it is no sum above 0, or above 1e15.
    """
    match = _MONEY.fullmatch(text.strip())
    value = -1.0
    if match:
        value = float(match[1].replace("_", "").replace(",", "")) * _COUNTS[match[2].lower()]
    if not 0 <= value <= MOST_USD or (not value and not may_be_zero):
        wrong = "too large" if value > MOST_USD else "no sum"
        least = "0 or more" if may_be_zero else "above 0"
        raise ConfigError(
            f"{where}: {wrong}, got '{shorten(text)}'; expected US dollars, {least}, up to "
            f"{MOST_USD:g}. Write e.g. 5000."
        )
    return value


def parse_usd_or_none_to_pay(text: str, where: str) -> float:
    """Return US dollars, which may be 0: a cluster of one's own that nobody is charged for."""
    return parse_usd(text, where, may_be_zero=True)


def read_link(text: str, where: str = "--link") -> Link:
    """Return the link that a text names, as :func:`parse_link`, if it can be one.

    Raises:
        ConfigError: it is not of that form, or no network is so fast or so slow.
    """
    try:
        link = parse_link(text, where)
        rate, latency_s = link.bandwidth_bytes_per_s, link.latency_s
    except OverflowError:
        rate, latency_s = math.inf, 0.0
    errors = []
    if not SLOWEST_LINK <= rate <= FASTEST_LINK:
        errors.append(
            f"{where}: no network has such a bandwidth, got '{shorten(text)}'; expected "
            f"{SLOWEST_LINK:g} to {FASTEST_LINK:g} bytes a second. Write e.g. 100gbit,20us."
        )
    if not latency_s <= LONGEST_LATENCY_S:
        errors.append(
            f"{where}: no network has such a latency, got '{shorten(text)}'; expected at most "
            f"{LONGEST_LATENCY_S:g} s. Write e.g. 100gbit,20us."
        )
    raise_all(ConfigError, errors)
    return link


def parse_share(text: str, where: str) -> float:
    """Return a part of 1, from 0.0001 to 1.

    >>> parse_share("0.45", "--mfu"), parse_share("45%", "--mfu")
    (0.45, 0.45)

    Raises:
        ConfigError: it is none. Over 100 % no GPU computes.
    """
    match = _SHARE.fullmatch(text.strip())
    value = float(match[1]) / (100.0 if match[2] else 1.0) if match else 0.0
    if not LEAST_SHARE <= value <= 1:
        over = " Nothing runs at over 100 %." if value > 1 else ""
        raise ConfigError(
            f"{where}: no share, got '{shorten(text)}'; expected {LEAST_SHARE:g} to 1, or a "
            f"percentage. Write e.g. 0.45 or 45%.{over}"
        )
    return value


def render_count(value: float) -> str:
    """Return a number with at most four digits.

    >>> render_count(1.3152e9), render_count(524288), render_count(100e9), render_count(12)
    ('1.315B', '524.3K', '100B', '12')
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size * 0.9995:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def render_duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> render_duration(363544), render_duration(90), render_duration(2e7), render_duration(0.0204)
    ('101 h (4.2 days)', '1.5 min', '5,560 h (231 days)', '0.0204 s')
    """
    if seconds >= 48 * 3600:
        days = seconds / 86400
        hours = f"{seconds / 3600:,.0f}" if seconds < 3.6e6 else f"{round(seconds / 3600, -1):,.0f}"
        return f"{hours} h ({days:.{0 if days >= 100 else 1}f} days)"
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def render_bytes(size_bytes: float) -> str:
    """Return bytes in GiB or MiB, as nvidia-smi counts.

    >>> render_bytes(80 * 2**30), render_bytes(3e6)
    ('80.0 GiB', '2.9 MiB')
    """
    if size_bytes >= 0.1 * 2**30:
        return f"{size_bytes / 2**30:.1f} GiB"
    return f"{size_bytes / 2**20:.1f} MiB"


def render_usd(value: float) -> str:
    """Return a sum of US dollars.

    >>> render_usd(4876.3), render_usd(0.526)
    ('$4,876', '$0.53')
    """
    return f"${value:,.0f}" if value >= 100 else f"${value:.2f}"
