"""What a link between nodes is like: bandwidth, latency and loss; text ↔ values. Pure.

Bandwidth is what a node's link carries, each way. Latency and loss act on what a node sends: a
message from n1 to n2 and its answer take the latency of n1 plus that of n2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# Decimal, as tc(8) reads them ("kbit" is 1000 bits per second).
_BITS = {"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z%]+)\s*", re.IGNORECASE)
OFF = "off"
MIN_BIT_PER_S, MAX_BIT_PER_S = 1e5, 1e12
MAX_LATENCY_S = 10.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A node's link; None is "as fast as this machine".

    Args:
        bandwidth_bit_per_s: each way.
        latency_s: of what the node sends.
        loss: probability that a packet that the node sends is lost, 0 to 1.
    """

    bandwidth_bit_per_s: float | None = None
    latency_s: float | None = None
    loss: float | None = None

    @property
    def delays_or_loses(self) -> bool:
        """Whether more than a rate limit is needed."""
        return bool(self.latency_s or self.loss)


def parse_shape(text: str, key: str, where: str, errors: list[str], base: Shape) -> Shape:
    """Return `base` with one of its parts set by a word such as "1gbit", "1ms", "0.1%" or "off".

    Args:
        key: bandwidth, latency or loss.
    """
    parse = {"bandwidth": parse_bandwidth, "latency": parse_latency, "loss": parse_loss}[key]
    field = {"bandwidth": "bandwidth_bit_per_s", "latency": "latency_s", "loss": "loss"}[key]
    if text.strip().lower() == OFF:
        return replace(base, **{field: None})
    value = parse(text, where, errors)
    return replace(base, **{field: value or None})


def parse_bandwidth(text: str, where: str, errors: list[str]) -> float | None:
    """Return bits per second, None (and an error in the list) where the text is none.

    >>> parse_bandwidth("2.5gbit", "", [])
    2500000000.0
    """
    value = _quantity(text, _BITS)
    if value is None or not MIN_BIT_PER_S <= value <= MAX_BIT_PER_S:
        hint = " Bits, not bytes: 8 bits are a byte." if "b/s" in text or "bps" in text else ""
        errors.append(
            f"{where}: no bandwidth, got '{text}'; expected a number with kbit, mbit or gbit, "
            f"from 100kbit to 1000gbit, or off.{hint}"
        )
        return None
    return value


def parse_latency(text: str, where: str, errors: list[str]) -> float | None:
    """Return seconds, None (and an error in the list) where the text is none.

    >>> parse_latency("250us", "", [])
    0.00025
    """
    value = _quantity(text, _SECONDS)
    if value is None or value > MAX_LATENCY_S:
        errors.append(
            f"{where}: no latency, got '{text}'; expected a number with us, ms or s, up to "
            f"{MAX_LATENCY_S:g}s, or off."
        )
        return None
    return value


def parse_loss(text: str, where: str, errors: list[str]) -> float | None:
    """Return a probability, None (and an error in the list) where the text is none.

    >>> parse_loss("0.1%", "", [])
    0.001
    """
    value = _quantity(text, {"%": 0.01})
    if value is None or value >= 1:
        errors.append(
            f"{where}: no loss, got '{text}'; expected a percentage below 100, such as 0.1%, "
            "or off."
        )
        return None
    return value


def parse_cpu_share(text: str, where: str, errors: list[str]) -> float | None:
    """Return a share of this machine's cores, 0 to 1.

    >>> parse_cpu_share("20%", "", [])
    0.2
    """
    value = _quantity(text, {"%": 0.01})
    if value is None or not 0.01 <= value <= 1:
        errors.append(
            f"{where}: no share of the cores, got '{text}'; expected a percentage from 1% to 100%."
        )
        return None
    return value


def render_bandwidth(bit_per_s: float | None) -> str:
    """Return bits per second in words.

    >>> render_bandwidth(1e9), render_bandwidth(52_340_000.0), render_bandwidth(None)
    ('1 Gbit/s', '52.3 Mbit/s', 'unlimited')
    """
    if bit_per_s is None:
        return "unlimited"
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6)):
        if bit_per_s >= size:
            return f"{bit_per_s / size:.3g} {unit}"
    return f"{bit_per_s / 1e3:.3g} kbit/s"


def render_latency(seconds: float | None) -> str:
    """Return a time in words.

    >>> render_latency(0.001), render_latency(0.0000712), render_latency(None)
    ('1 ms', '0.071 ms', '0 ms')
    """
    milliseconds = (seconds or 0.0) * 1e3
    return f"{milliseconds:.3g} ms" if milliseconds >= 0.1 else f"{milliseconds:.2g} ms"


def render_loss(loss: float | None) -> str:
    """Return a probability as a percentage.

    >>> render_loss(0.001), render_loss(None)
    ('0.1 %', '0 %')
    """
    return f"{(loss or 0.0) * 100:.3g} %"


def render_shape(shape: Shape) -> str:
    """Return a shape in words.

    >>> render_shape(Shape(1e9, 0.001)), render_shape(Shape())
    ('1 Gbit/s, latency 1 ms', 'as fast as this machine')
    """
    words = [
        render_bandwidth(shape.bandwidth_bit_per_s) if shape.bandwidth_bit_per_s else "",
        f"latency {render_latency(shape.latency_s)}" if shape.latency_s else "",
        f"loss {render_loss(shape.loss)}" if shape.loss else "",
    ]
    return ", ".join(filter(None, words)) or "as fast as this machine"


def _quantity(text: str, units: dict[str, float]) -> float | None:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        return None
    # Rounded: 0.1 % times 0.01 is not quite a thousandth.
    return float(f"{float(match[1]) * units[match[2].lower()]:.12g}")
