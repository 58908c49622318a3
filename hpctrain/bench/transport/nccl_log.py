"""NCCL's log (NCCL_DEBUG=INFO) → which transports its channels were connected by. Pure.

Source of the lines: NCCL, ``src/transport/*.cc`` and ``src/graph/search.cc``, 2.4 to 2.28; real
logs in tests/unit/test_transport_logs.py.
"""

from __future__ import annotations

import re

from hpctrain.bench.transport.found import EVIDENCE_LINES, TransportFound

# "Channel 00/0 : 3[0] -> 4[1] [send] via NET/IB/0/GDRDMA"; before 2.5 "Ring 00 : 15 -> 0 [receive]
# via …". A network's name may hold spaces ("AWS Libfabric") and ends at the device's number.
_CHANNEL = re.compile(r"(?:Channel|Ring|Tree) [\d/]+ : .*? via (?P<how>.+?)\s*$")
_NETWORK = re.compile(r"NET/(?P<name>[^/]+)/\d+")
_CHOSEN = re.compile(r"Using network (?P<name>.+?)\s*$")
_PROVIDER = re.compile(r"NET/OFI Selected [Pp]rovider is (?P<name>[^\s,]+)")
# "Pattern 4, crossNic 0, nChannels 12, bw 20.0/20.0, type NVL/PIX, sameChannels 1": the first path
# is the one between GPUs of a host.
_GRAPH = re.compile(r"Pattern \d+, .*\btype (?P<within>[A-Z]+)/")
NVLINK_PATHS = ("NVL", "NVB", "C2C")
_LIBFABRIC = ("AWS Libfabric", "Libfabric", "OFI")
# A name begins with one of these: IBext_v8, GPUDirectTCPX_v7, FasTrak …
_KINDS = (
    ("GPUDirectTCPX", "tcpx"),
    ("FasTrak", "tcpx"),
    ("FastSocket", "socket"),
    ("Socket", "socket"),
    ("IB", "ib"),
    ("gIB", "ib"),
)


def parse_nccl_log(text: str) -> TransportFound | None:
    """Return what NCCL's channels use; None where NCCL said nothing of it.

    What channels are connected by counts; only where no channel leaves a host, and NCCL says what
    it would use, that is taken.
    """
    providers = [match["name"] for match in _PROVIDER.finditer(text)]
    between: dict[str, str] = {}
    chosen: dict[str, str] = {}
    within: dict[str, str] = {}
    paths = []
    for line in text.splitlines():
        if match := _GRAPH.search(line):
            paths.append(match["within"])
        elif match := _CHOSEN.search(line):
            chosen.setdefault(_kind_of(match["name"], providers), line.strip())
        elif match := _CHANNEL.search(line):
            if network := _NETWORK.search(match["how"]):
                between.setdefault(_kind_of(network["name"], providers), line.strip())
            else:
                within.setdefault(match["how"].partition("/")[0], line.strip())
    if not (between or chosen or within):
        return None
    used = {_within_kind(how, paths): line for how, line in within.items()}
    known = between or chosen
    return TransportFound(
        library="NCCL",
        between=tuple(known),
        within=tuple(used),
        evidence=(*known.values(), *used.values())[:EVIDENCE_LINES],
    )


def _kind_of(network: str, providers: list[str]) -> str:
    """Return a network's kind; libfabric's is its provider's, which may be TCP as well."""
    if network in _LIBFABRIC:
        if not providers:
            return network
        return (
            "efa"
            if all(name.startswith("efa") for name in providers)
            else "socket"
            if all(name.startswith(("tcp", "sockets", "udp")) for name in providers)
            else "+".join(dict.fromkeys(providers))
        )
    return next((kind for start, kind in _KINDS if network.startswith(start)), network)


def _within_kind(how: str, paths: list[str]) -> str:
    """Return what a channel within a host goes over: P2P may be NVLink or PCIe, the graph tells."""
    if how in ("SHM", "direct shared memory"):
        return "shm"
    if how in ("P2P", "NVLS"):
        if how == "NVLS" or (paths and all(path in NVLINK_PATHS for path in paths)):
            return "nvlink"
        return "pcie" if paths else "p2p"
    return how
