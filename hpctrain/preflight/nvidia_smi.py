"""What ``nvidia-smi -q`` and ``nvidia-smi -L`` say of a host's GPUs, as values.

`-q` and not ``--query-gpu``: the names of the latter's fields change with the driver (throttle
reasons became event reasons in 535), one that a driver does not know makes it refuse the whole
query, and it has neither processes nor the slices of a GPU (MIG).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_GPU_LINE = re.compile(r"GPU ([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)\s*$")
_LISTED = re.compile(r"(?P<kind>GPU|MIG) .*\(UUID: (?P<uuid>[^)]+)\)\s*$")
_SLICE = "MIG Device"
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that has a context on a GPU; `used_bytes` is None where nvidia-smi may not say."""

    pid: int
    kind: str
    name: str
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """One GPU as it is now.

    Args:
        slices: UUIDs of its parts where it is cut (MIG); `slices_free_bytes` in the same order.
        uncorrected: errors that ECC could not correct since the driver was loaded; None where it is
            on and they are not told.
        troubles: what nvidia-smi itself calls broken or waiting for a reset, in its words.
        slowed: why its clocks are lowered, beyond idling and settings, in its words.
    """

    bus_id: str
    name: str
    uuid: str
    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    compute_mode: str = "Default"
    mig: bool = False
    slices: tuple[str, ...] = ()
    slices_free_bytes: tuple[int | None, ...] = ()
    uncorrected: int | None = 0
    troubles: tuple[str, ...] = ()
    slowed: tuple[str, ...] = ()
    processes: tuple[GpuProcess, ...] = ()


# Labels whose "Yes" (or, for the recovery action, anything but "None") is trouble.
_TROUBLES = (
    "Reset Required", "Drain and Reset Recommended", "GPU Recovery Action",
    "SRAM Threshold Exceeded", "Channel Repair Pending", "TPC Repair Pending",
    "Unrepairable Memory", "Pending Page Blacklist",
)  # fmt: skip
_SLOWDOWNS = (
    "HW Thermal Slowdown", "HW Power Brake Slowdown", "HW Slowdown", "SW Thermal Slowdown",
)  # fmt: skip
_LOST = ("Unknown Error", "GPU is lost", "ERR!", "Reset Required")

Tree = dict[str, Any]


def parse_nvidia_smi(query: str, listed: str = "") -> tuple[GpuState, ...]:
    """Return the GPUs in the order of their numbers.

    Args:
        query: the output of ``nvidia-smi -q``.
        listed: of ``nvidia-smi -L``, which alone has the UUIDs of slices.
    """
    slices = _slices_of(listed)
    states = []
    for bus_id, lines in _split_gpus(query):
        tree = _parse_tree(lines)
        uuid = str(tree.get("GPU UUID", ""))
        states.append(_state(bus_id, uuid, tree, slices.get(uuid, ())))
    return tuple(states)


def resolve_visible(text: str | None, gpus: Sequence[GpuState]) -> list[tuple[GpuState, str]]:
    """Return the devices that ``CUDA_VISIBLE_DEVICES`` leaves: (GPU, its or its slice's UUID).

    Numbers count GPUs in nvidia-smi's order; UUIDs may be cut short. As CUDA does, everything
    from the first entry on that names no device is left out (CUDA programming guide, "CUDA
    Environment Variables"). Where a GPU is cut into slices, without the variable the first counts.
    """
    if text is None:
        return [(gpu, gpu.slices[0] if gpu.slices else gpu.uuid) for gpu in gpus]
    found = []
    for entry in (word.strip() for word in text.split(",")):
        device = _find_device(entry, gpus)
        if device is None:
            break
        found.append(device)
    return found


def _find_device(entry: str, gpus: Sequence[GpuState]) -> tuple[GpuState, str] | None:
    if entry.isascii() and entry.isdigit():
        if int(entry) >= len(gpus):
            return None
        gpu = gpus[int(entry)]
        return gpu, gpu.slices[0] if gpu.slices else gpu.uuid
    for gpu in gpus:
        for slice_ in gpu.slices:
            if entry.startswith("MIG-") and slice_.startswith(entry):
                return gpu, slice_
        if entry.startswith("GPU-") and gpu.uuid.startswith(entry):
            return gpu, gpu.uuid
    return None


def _slices_of(listed: str) -> dict[str, tuple[str, ...]]:
    """Return GPU's UUID → its slices' UUIDs."""
    found: dict[str, tuple[str, ...]] = {}
    parent = ""
    for line in listed.splitlines():
        match = _LISTED.match(line.strip())
        if match and match["kind"] == "GPU":
            parent = match["uuid"]
        elif match and parent:
            found[parent] = (*found.get(parent, ()), match["uuid"])
    return found


def _split_gpus(query: str) -> Iterator[tuple[str, list[str]]]:
    bus_id, lines = "", []
    for line in query.splitlines():
        if match := _GPU_LINE.match(line):
            if bus_id:
                yield bus_id, lines
            bus_id, lines = match[1], []
        elif line.strip():
            lines.append(line)
    if bus_id:
        yield bus_id, lines


def _parse_tree(lines: Sequence[str]) -> Tree:
    """Return indented ``Label : value`` lines as nested tables; what comes twice is a list."""
    root: Tree = {}
    open_tables: list[tuple[int, Tree]] = [(-1, root)]
    for line in lines:
        depth = len(line) - len(line.lstrip())
        label, colon, value = (part.strip() for part in line.partition(" : "))
        while open_tables[-1][0] >= depth:
            open_tables.pop()
        table = open_tables[-1][1]
        # A value may have lines below it, as a process's ID has.
        child: Tree = {"": value} if colon else {}
        open_tables.append((depth, child))
        table.setdefault(label, []).append(child)
    return _plain(root)


def _plain(table: Tree) -> Tree:
    """Return a table with single entries instead of lists of one, and text where it is all."""
    plain: Tree = {}
    for label, entries in table.items():
        if label == "":
            plain[label] = entries
            continue
        values = [entry[""] if set(entry) == {""} else _plain(entry) for entry in entries]
        plain[label] = values[0] if len(values) == 1 else values
    return plain


def _state(bus_id: str, uuid: str, tree: Tree, slices: tuple[str, ...]) -> GpuState:
    memory = _table(tree, "FB Memory Usage")
    volatile = _table(_table(tree, "ECC Errors"), "Volatile")
    uncorrected = _count_uncorrected(volatile)
    if uncorrected is None and not _has_ecc(tree):
        uncorrected = 0
    free = [
        _bytes(_table(part, "Shared FB Memory Usage").get("Free"))
        for part in _as_list(tree.get(_SLICE))
        if isinstance(part, Mapping)
    ]
    return GpuState(
        bus_id=bus_id, uuid=uuid, name=str(tree.get("Product Name", "unknown GPU")),
        total_bytes=_bytes(memory.get("Total")), used_bytes=_bytes(memory.get("Used")),
        free_bytes=_bytes(memory.get("Free")),
        compute_mode=str(tree.get("Compute Mode", "Default")),
        mig=_table(tree, "MIG Mode").get("Current") == "Enabled",
        slices=slices, slices_free_bytes=tuple(free),
        uncorrected=uncorrected, troubles=tuple(_troubles(tree)), slowed=tuple(_slowed(tree)),
        processes=tuple(_processes(tree)),
    )  # fmt: skip


def _count_uncorrected(volatile: Mapping[str, Any]) -> int | None:
    """Return the errors since the driver was loaded; GPUs before Turing count by bits."""
    counts = [value for label, value in volatile.items() if "Uncorrectable" in label]
    if double := _table(volatile, "Double Bit"):
        counts.append(double.get("Total"))
    return sum(_number(count) or 0 for count in counts) if counts else None


def _has_ecc(tree: Tree) -> bool:
    mode = _table(tree, "ECC Mode") or _table(tree, "Ecc Mode")
    return mode.get("Current") == "Enabled"


def _troubles(tree: Tree) -> Iterator[str]:
    for label, value in _leaves(tree):
        if label in _TROUBLES and value not in ("No", "None", "N/A", ""):
            yield f"{label}: {value}"
    rows = _table(tree, "Remapped Rows")
    for label in ("Pending", "Remapping Failure Occurred"):
        if rows.get(label) == "Yes":
            yield f"Remapped Rows, {label}: Yes"
    for label in ("GPU UUID", "Performance State", "Product Name"):
        if any(lost in str(tree.get(label, "")) for lost in _LOST):
            yield f"{label}: {tree[label]}"


def _slowed(tree: Tree) -> Iterator[str]:
    reasons = _table(tree, "Clocks Event Reasons") or _table(tree, "Clocks Throttle Reasons")
    active = [label for label, value in _leaves(reasons) if value == "Active"]
    found = [label for label in _SLOWDOWNS if label in active]
    # The hardware's reason in general says nothing more beside the one in particular.
    yield from [label for label in found if label != "HW Slowdown" or len(found) == 1]


def _processes(tree: Tree) -> Iterator[GpuProcess]:
    for entry in _as_list(_table(tree, "Processes").get("Process ID")):
        if isinstance(entry, Mapping) and (pid := _number(entry.get(""))) is not None:
            yield GpuProcess(
                pid=pid, kind=str(entry.get("Type", "")), name=str(entry.get("Name", "")),
                used_bytes=_bytes(entry.get("Used GPU Memory")),
            )  # fmt: skip


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for label, value in tree.items():
        for item in _as_list(value):
            if isinstance(item, Mapping):
                if "" in item:
                    yield label, str(item[""])
                yield from _leaves({key: rest for key, rest in item.items() if key})
            else:
                yield label, str(item)


def _table(tree: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    value = tree.get(label)
    return value if isinstance(value, Mapping) else {}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _number(value: Any) -> int | None:
    match = re.match(r"\d+", str(value))
    return int(match[0]) if match else None


def _bytes(value: Any) -> int | None:
    text = str(value)
    return (_number(text) or 0) * MIB if re.match(r"\d+ MiB", text) else None
