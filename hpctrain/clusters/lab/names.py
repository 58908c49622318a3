"""What a lab's things are called in the kernel, so that they are found by name after a crash.

A network namespace is called hpctrain.LAB.NODE (LAB has no dots in it). Whatever else belongs to
a lab hangs on one: a process lives in it, a link ends in it. Control groups have its name too.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import NamedTuple

NAMESPACE_FOLDER = "/run/netns"  # of ip-netns(8)
PREFIX = "hpctrain."
SWITCH = "switch"
BRIDGE, UPLINK_PORT = "br0", "uplink"
NODE_LINK = "eth0"
MARK = "hpctrain lab "  # a link without it in its alias is not ours, whatever its name
LONGEST_FOLDER = 190  # of a mark: an alias has 255 bytes (IFALIASZ of linux/if.h)
LONGEST_LINK_NAME = 15  # IFNAMSIZ of linux/if.h, less the zero at the end


class Space(NamedTuple):
    """A network namespace of a lab: of one of its nodes, or of its switch."""

    lab: str
    node: str

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.lab}.{self.node}"

    @property
    def path(self) -> str:
        return f"{NAMESPACE_FOLDER}/{self.name}"


def parse_space(name: str) -> Space | None:
    """Return whose a network namespace is, None where it is no lab's.

    >>> parse_space("hpctrain.my-lab.n2")
    Space(lab='my-lab', node='n2')
    >>> parse_space("blue") is None
    True
    """
    lab, dot, node = name.removeprefix(PREFIX).partition(".")
    return Space(lab, node) if name.startswith(PREFIX) and dot and lab and node else None


def machine_link(lab: str) -> str:
    """Return the name of this machine's interface to a lab.

    >>> machine_link("lab"), machine_link("a-very-long-name")
    ('hpc-lab', 'hpc-c247f340')
    """
    plain = f"hpc-{lab}"
    return plain if len(plain) <= LONGEST_LINK_NAME else f"hpc-{zlib.crc32(lab.encode()):08x}"


def state_folder_mark(folder: str) -> str:
    """Return what stands for a lab's state folder in a mark: itself, where that fits.

    >>> state_folder_mark("/state/clusters/lab"), state_folder_mark("/" + 200 * "x")[:14]
    ('/state/clusters/lab', 'sha256:8511a37')
    """
    encoded = os.fsencode(folder)
    if len(encoded) <= LONGEST_FOLDER and folder.isprintable():
        return folder
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def link_mark(lab: str, folder: str) -> str:
    """Return the alias of this machine's link to a lab, so that it is known for that lab's.

    >>> link_mark("lab", "/state/clusters/lab")
    'hpctrain lab lab in /state/clusters/lab'
    """
    return f"{MARK}{lab} in {state_folder_mark(folder)}"


def marked_folder(lab: str, mark: str) -> str | None:
    """Return the folder that a mark names, None where it is no mark of this lab.

    >>> marked_folder("lab", "hpctrain lab lab in /a b"), marked_folder("lab", "uplink")
    ('/a b', None)
    """
    start = f"{MARK}{lab} in "
    return mark.removeprefix(start) if mark.startswith(start) else None


def switch_port(node: str) -> str:
    """Return the name of the switch's end of a node's cable.

    >>> switch_port("n2")
    'to-n2'
    """
    return f"to-{node}"


def mac_address(address: str) -> str:
    """Return an Ethernet address, locally administered, that belongs to an IPv4 address.

    >>> mac_address("198.18.7.11")
    '02:00:c6:12:07:0b'
    """
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))
