"""Numbers as people write them: 100B tokens, 48h, $5000, 45%; and back."""

from __future__ import annotations

import re

from hpctrain.errors import ConfigError

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_COUNT = re.compile(
    r"(\d[\d_,]*(?:\.\d+)?(?:e\d+)?)\s*([kmbt]?)(?:\s*tok(?:en)?s?)?", re.IGNORECASE
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[smhdw])", re.IGNORECASE)
_MONEY = re.compile(r"\$?\s*(\d[\d_,]*(?:\.\d+)?)\s*([km]?)\s*(?:usd|\$)?", re.IGNORECASE)
_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)")


def parse_count(text: str, where: str) -> int:
    """Return a whole number of things, such as tokens.

    >>> parse_count("100B", "--tokens"), parse_count("1.3T", "--tokens"), parse_count("524_288", "")
    (100000000000, 1300000000000, 524288)

    Raises:
        ConfigError: it is none, or below 1.
    """
    match = _COUNT.fullmatch(text.strip())
    value = 0
    if match:
        number = match[1].replace("_", "").replace(",", "")
        value = round(float(number) * _COUNTS[match[2].lower()])
    if value < 1:
        raise ConfigError(
            f"{where}: no number, got '{text}'; expected 1 or more, with K, M, B (1e9) or T (1e12) "
            "behind it. Write e.g. 100B."
        )
    return value


def parse_duration_s(text: str, where: str) -> float:
    """Return seconds.

    >>> parse_duration_s("48h", "--deadline") == parse_duration_s("2d", "--deadline")
    True
    >>> parse_duration_s("1d 12h", ""), parse_duration_s("30min", "")
    (129600.0, 1800.0)

    Raises:
        ConfigError: it is no time above 0.
    """
    rest = _PART.sub("", text).strip()
    seconds = sum(float(value) * _SECONDS[unit.lower()] for value, unit in _PART.findall(text))
    if rest or seconds <= 0:
        raise ConfigError(
            f"{where}: no time, got '{text}'; expected a number above 0 with s, min, h, d or w. "
            "Write e.g. 48h, 2d or 1d12h."
        )
    return seconds


def parse_usd(text: str, where: str) -> float:
    """Return US dollars.

    >>> parse_usd("5000", "--budget"), parse_usd("$2.5k", "--budget")
    (5000.0, 2500.0)

    Raises:
        ConfigError: it is no sum above 0.
    """
    match = _MONEY.fullmatch(text.strip())
    value = 0.0
    if match:
        value = float(match[1].replace("_", "").replace(",", "")) * _COUNTS[match[2].lower()]
    if value <= 0:
        raise ConfigError(
            f"{where}: no sum, got '{text}'; expected US dollars above 0. Write e.g. 5000."
        )
    return value


def parse_share(text: str, where: str) -> float:
    """Return a part of 1, above 0 and at most 1.

    >>> parse_share("0.45", "--mfu"), parse_share("45%", "--mfu")
    (0.45, 0.45)

    Raises:
        ConfigError: it is none. Over 100 % no GPU computes.
    """
    match = _SHARE.fullmatch(text.strip())
    value = float(match[1]) / (100.0 if match[2] else 1.0) if match else 0.0
    if not 0 < value <= 1:
        over = " Nothing runs at over 100 %." if value > 1 else ""
        raise ConfigError(
            f"{where}: no share, got '{text}'; expected more than 0 and at most 1, or a "
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
