"""What a message costs on a link: latency and bandwidth (Hockney 1994, the alpha-beta model).

A link stands for one direction: of a node's network card, or between two ranks of one node.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpctrain.errors import ConfigError, raise_all

_BYTES = {"bit": 1 / 8, "byte": 1.0}
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgt]?)(bit|byte)(?:/s|ps)?", re.IGNORECASE)
_LATENCY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(us|ms|s)", re.IGNORECASE)
# btl_tcp_eager_limit of Open MPI 5.0 (ompi_info): longer messages ask for leave first.
EAGER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a link.

    Args:
        latency_s: of a message of no length, one way, software included.
        bandwidth_bytes_per_s: what programs get of it.
        handshake_s: what a message of more than `eager_bytes` waits for before it flows: its
            request and the answer to that, a round trip (MPI's rendezvous protocol). 0 for NCCL.
        error: relative uncertainty of bandwidth and latency, e.g. 0.25: the truth is between
            1/1.25 and 1.25 times the values. The error band of a prediction comes from it.
        source: where the numbers come from, for people.
    """

    latency_s: float
    bandwidth_bytes_per_s: float
    name: str = ""
    source: str = ""
    handshake_s: float = 0.0
    error: float = 0.0
    eager_bytes: int = EAGER_BYTES

    def message_s(self, bytes_: float) -> float:
        """Return how long one message takes.

        >>> Link(1e-3, 1e6).message_s(1000)
        0.002
        """
        return self.start_s(bytes_) + bytes_ / self.bandwidth_bytes_per_s

    def start_s(self, bytes_: float) -> float:
        """Return how long it takes before the message flows."""
        return self.latency_s + (self.handshake_s if bytes_ > self.eager_bytes else 0.0)

    def scaled(self, factor: float) -> Link:
        """Return a link that is `factor` times as fast, in bandwidth and latency alike."""
        return replace(
            self,
            latency_s=self.latency_s / factor,
            handshake_s=self.handshake_s / factor,
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s * factor,
        )


def parse_link(text: str, where: str = "--link") -> Link:
    """Return the link that ``BANDWIDTH[,LATENCY]`` names; without a latency, 20 us.

    Raises:
        ConfigError: it is not of that form; every part that is wrong is named.

    >>> link = parse_link("100gbit,20us")
    >>> link.bandwidth_bytes_per_s, link.latency_s
    (12500000000.0, 2e-05)
    >>> parse_link("1.5gbyte/s, 1ms").bandwidth_bytes_per_s
    1500000000.0
    """
    words = [word.strip() for word in text.split(",")]
    errors = []
    bandwidth = _BANDWIDTH.fullmatch(words[0])
    latency = _LATENCY.fullmatch(words[1]) if len(words) == 2 else None
    if bandwidth is None or not float(bandwidth[1]):
        errors.append(
            f"{where}: no bandwidth, got '{words[0]}'; expected a number above 0 with kbit, mbit, "
            "gbit, mbyte or gbyte. Write e.g. 100gbit,20us."
        )
    if len(words) > 2 or (len(words) == 2 and latency is None):
        errors.append(
            f"{where}: no latency, got '{','.join(words[1:])}'; expected a number with us, ms or "
            "s. Write e.g. 100gbit,20us."
        )
    raise_all(ConfigError, errors)
    size = _PREFIXES[bandwidth[2].lower()] * _BYTES[bandwidth[3].lower()]
    seconds = float(latency[1]) * _SECONDS[latency[2].lower()] if latency else 20e-6
    return Link(
        latency_s=float(f"{seconds:.12g}"),
        bandwidth_bytes_per_s=float(bandwidth[1]) * size,
        name=text.strip(),
        source=f"as given ({where} {text.strip()})",
    )


@dataclass(frozen=True, slots=True)
class LinkFit:
    """A link found from measured all-reduces.

    Args:
        residuals: (predicted - measured) / measured, one for each point.
        points: (bytes, seconds) as measured.
        n: ranks that took part.
    """

    link: Link
    residuals: tuple[float, ...]
    points: tuple[tuple[int, float], ...]
    n: int


def fit_allreduce(
    points: Sequence[tuple[int, float]],
    n: int,
    algorithm: str = "ring",
    name: str = "",
    eager_bytes: int = EAGER_BYTES,
) -> LinkFit:
    """Find latency and bandwidth (and the handshake, where messages show it) from all-reduces.

    Each all-reduce is a number of rounds (:func:`hpctrain.scaling_model.collectives.rounds`);
    its time is linear in latency, handshake and 1/bandwidth. Those are found by least squares of
    the relative errors, none below 0. For a ring: t = 2(n-1)·latency + 2(n-1)/n·S/bandwidth.

    Args:
        points: (bytes, seconds), two sizes or more; several for one size are weighed alike.
        n: ranks, each on a node of its own, or all of one node.
        algorithm: ``ring``, or ``openmpi`` (which chooses by size, as Open MPI 5 does).
        eager_bytes: messages of more than these begin with a handshake (not in a ring of NCCL).

    Raises:
        ConfigError: fewer than two sizes, or one rank.

    >>> fit = fit_allreduce([(1000, 0.003), (1_000_000, 1.002)], n=2)
    >>> round(fit.link.latency_s, 6), round(fit.link.bandwidth_bytes_per_s)
    (0.001, 1000000)
    """
    from hpctrain.scaling_model.collectives import rounds
    from hpctrain.scaling_model.least_squares import solve_non_negative

    points = tuple((int(bytes_), float(seconds)) for bytes_, seconds in points)
    if n < 2 or len({bytes_ for bytes_, _ in points}) < 2:
        raise ConfigError(
            f"fit_allreduce: too little to find latency and bandwidth from, got {len(points)} "
            f"measurements on {n} rank(s); expected two message sizes and two ranks. "
            "Measure more sizes."
        )
    rows = []
    for bytes_, seconds in points:
        steps = rounds(bytes_, n, algorithm)
        count = sum(step.count for step in steps)
        asking = sum(step.count for step in steps if step.bytes_ > eager_bytes)
        moved = sum(step.count * step.bytes_ for step in steps)
        rows.append(tuple(value / seconds for value in (count, asking, moved)))
    if algorithm == "ring":  # NCCL and gloo know no handshake
        rows = [(count, 0.0, moved) for count, _, moved in rows]
    latency_s, handshake_s, per_byte_s = solve_non_negative(rows, [1.0] * len(rows))
    residuals = tuple(
        sum(a * x for a, x in zip(row, (latency_s, handshake_s, per_byte_s), strict=True)) - 1.0
        for row in rows
    )
    link = Link(
        latency_s=latency_s,
        bandwidth_bytes_per_s=1.0 / max(per_byte_s, 1e-15),
        handshake_s=handshake_s,
        name=name,
        error=_typical(residuals),
        eager_bytes=eager_bytes,
        source=f"fitted to {len(points)} all-reduces of {n} ranks ({algorithm})",
    )
    return LinkFit(link, residuals, points, n)


def _typical(residuals: Sequence[float]) -> float:
    """Return the root mean square."""
    return (sum(r * r for r in residuals) / len(residuals)) ** 0.5
