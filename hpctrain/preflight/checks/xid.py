"""Has the NVIDIA driver logged errors (Xid) since this host started?

Codes and what they ask for: NVIDIA, "Xid Errors" (r590 catalogue); memory: NVIDIA, "GPU Memory
Error Management", in-band reporting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hpctrain.executor import Command, LocalExecutor
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.checks.gpu_states import DRIVER, wants_gpus
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "xid"
LOG_TIMEOUT_S = 15.0
# Older ones are told, and not held against the host: it may have been repaired by a reset.
FRESH_S = 86400.0
# Of the GPU, its memory or its links: another run would meet them too.
HARDWARE = {
    48: "uncorrectable memory error", 61: "internal microcontroller",
    62: "internal microcontroller",
    64: "a row of memory could not be remapped", 74: "NVLink error", 79: "GPU fell off the bus",
    92: "many corrected memory errors", 95: "uncontained memory error", 110: "security fault",
    119: "GSP does not answer", 120: "GSP failed", 136: "link could not be trained",
    140: "unrecovered memory error", 143: "GPU could not be initialized",
    144: "NVLink error", 145: "NVLink error", 146: "NVLink error", 147: "NVLink error",
    148: "NVLink error", 149: "NVLink error", 150: "NVLink error", 151: "key rotation failed",
    154: "a recovery action is asked for", 155: "NVLink error", 156: "resource was retired",
    158: "fatal timeout", 171: "uncorrectable DRAM error", 172: "uncorrectable SRAM error",
}  # fmt: skip
# Of a program: bad addresses, illegal instructions, what follows when one is killed.
OF_PROGRAMS = frozenset({8, 13, 31, 32, 43, 45, 68, 69, 109, 137})
# Seconds since the start, as dmesg has them, and journalctl with the host behind; a kernel may put
# the caller there (CONFIG_PRINTK_CALLER).
_STAMP = r"\[ *(?P<time_s>\d+\.\d+)\] (?:\S+ kernel: )?(?:\[ *[CT]\d+\] )?"
_XID = re.compile(
    rf"(?:{_STAMP})?NVRM: Xid \((?:PCI:)?(?P<pci>[0-9A-Fa-f:.]+)[^)]*\): "
    r"(?P<code>\d+),? ?(?P<text>.*)"
)
_ENTRY = re.compile(r"^\[ *\d+\.\d+\] ", re.MULTILINE)
# Some drivers tell it so, without a number and in three lines.
_OFF_THE_BUS = re.compile(
    rf"(?:{_STAMP})?NVRM: The NVIDIA GPU (?P<pci>[0-9A-Fa-f:.]+)\n.*\n"
    r".*fallen off the bus"
)


@dataclass(frozen=True, slots=True)
class Xid:
    """One kind of error on one GPU: `count` times, the last of them `time_s` after the start."""

    pci: str
    code: int
    text: str
    count: int = 1
    time_s: float | None = None


def parse_xids(log: str) -> tuple[Xid, ...]:
    """Return the errors of a kernel log (dmesg, or journalctl), one a GPU and code."""
    found: dict[tuple[str, int], Xid] = {}
    matches = [*_XID.finditer(log), *_OFF_THE_BUS.finditer(log)]
    for match in sorted(matches, key=lambda each: each.start()):
        groups = match.groupdict()
        code, text = int(groups.get("code") or 79), groups.get("text") or "fallen off the bus"
        key = groups["pci"], code
        before = found.get(key)
        time_s = float(groups["time_s"]) if groups["time_s"] else None
        found[key] = Xid(*key, text.strip()[:200], before.count + 1 if before else 1, time_s)
    return tuple(found.values())


def _look(task: NodeTask) -> dict[str, Any] | None:
    if not DRIVER.exists():
        return None
    executor = LocalExecutor()
    # Seconds since the start in both, whatever the host's language and time zone.
    commands = (("dmesg",), ("journalctl", "-k", "-b", "--no-pager", "-o", "short-monotonic"))
    for argv in commands:
        done = executor.run(Command(argv), timeout_s=LOG_TIMEOUT_S)
        # To a user who may not see the kernel's, journalctl shows an own journal without entries.
        if done.ok and _ENTRY.search(done.stdout):
            return {"xids": [asdict(xid) for xid in parse_xids(done.stdout)], "up_s": _up_s()}
    return {"xids": None, "up_s": 0.0}


def _up_s() -> float:
    with open("/proc/uptime", encoding="ascii") as file:
        return float(file.read().split()[0])


LOG = Probe("kernel-log", _look, 3 * LOG_TIMEOUT_S)


def judge_xids(fleet: Fleet) -> Iterator[Verdict]:
    """Fail hosts with fresh errors of the hardware; programs' own errors count for nothing."""
    for host, answer in fleet.answers.get(LOG.name, {}).items():
        if wants_gpus(fleet.tasks[host]) is False or (not answer.error and answer.value is None):
            continue  # no ranks on GPUs there
        if answer.error:
            yield not_asked(CODE, host, answer.error)
        elif answer.value["xids"] is None:
            fix = "sudo dmesg | grep Xid; or: sudo sysctl kernel.dmesg_restrict=0"
            yield Verdict(CODE, SKIP, "this user sees no entry of the kernel log", fix, "", (host,))
        else:
            xids = [Xid(**each) for each in answer.value["xids"]]
            yield from _judge_host(host, xids, answer.value["up_s"])


def _judge_host(host: str, xids: list[Xid], up_s: float) -> Iterator[Verdict]:
    counted = [xid for xid in xids if xid.code not in OF_PROGRAMS]
    for xid in counted:
        meaning = HARDWARE.get(xid.code)
        age_s = None if xid.time_s is None else up_s - xid.time_s
        old = age_s is not None and age_s > FRESH_S
        when = "" if age_s is None else f", last {age_s / 3600:.1f} h ago"
        found = (
            f"Xid {xid.code} of GPU {xid.pci}{f' ({meaning})' if meaning else ''}, "
            f"{xid.count} times since the start{when}: {xid.text[:80]}"
        )
        fix = "take the host out; reset the GPU or reboot, and see NVIDIA's list of Xid errors"
        yield Verdict(CODE, FAIL if meaning and not old else WARN, found, fix, "", (host,))
    if not counted:
        others = ", ".join(str(xid.code) for xid in xids)
        programs = f"; of programs alone: {others}" if others else ""
        yield Verdict(CODE, PASS, f"none of the hardware{programs}", hosts=(host,))


XID = Check(CODE, judge_xids, (LOG,))
