"""How fast does each host write and read where the run will lie, and does it read what it wrote?

All hosts at once, as when a checkpoint is saved.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpctrain.preflight.check import FULL, Check, Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

PROBE = "storage"
MOST_BYTES, LEAST_BYTES = 256 << 20, 8 << 20
PART_OF_FREE = 20  # it takes this part of what is free at most
BLOCK_BYTES = 4 << 20
LONGEST_S = 10.0  # of writing, and of reading; what is slower is measured on fewer bytes
PROBE_TIMEOUT_S = 90.0  # fsync may take long where much was written before
SLOW_BYTES_PER_S = 20e6  # a disk of the 1990s: a checkpoint of 10 GB would take 8 minutes


def probe_storage(task: NodeTask) -> dict[str, Any]:
    """Write a file where the run's folder will be, read it past the cache, compare, remove it."""
    folder = find_folder(Path(task.run_path or task.cwd))
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    wanted = min(MOST_BYTES, free // PART_OF_FREE) // BLOCK_BYTES * BLOCK_BYTES
    if wanted < LEAST_BYTES:
        return {"folder": str(folder), "free_bytes": free, "full": True}
    return {"folder": str(folder), "free_bytes": free, **measure_storage(folder, wanted)}


def find_folder(run_path: Path) -> Path:
    """Return the folder that is there already on the way to a run's."""
    return next(path for path in run_path.absolute().parents if path.is_dir())


def measure_storage(folder: Path, wanted: int) -> dict[str, Any]:
    """Write `wanted` bytes, or what LONGEST_S allows of them, and read them back.

    The file has no name once it is open, so nothing is left of it however this process ends.
    """
    descriptor, name = tempfile.mkstemp(prefix=".hpctrain-preflight-", dir=folder)
    try:
        os.unlink(name)
        block = mmap.mmap(-1, BLOCK_BYTES)  # aligned to pages, as O_DIRECT wants it
        block.write(os.urandom(1 << 20) * (BLOCK_BYTES >> 20))
        began_s = time.perf_counter()
        written = 0
        while written < wanted and time.perf_counter() - began_s < LONGEST_S:
            _number(block, written)
            written += _write_all(descriptor, block)
        os.fsync(descriptor)
        write_s = time.perf_counter() - began_s
        direct = _go_past_cache(descriptor)
        read, damaged, read_s = _read_back(descriptor, block, written)
    finally:
        os.close(descriptor)
    return {
        "written_bytes": written, "write_s": write_s, "read_bytes": read, "read_s": read_s,
        "direct": direct, "damaged_blocks": damaged,
    }  # fmt: skip


def _number(block: mmap.mmap, offset: int) -> None:
    """Make each block another one: a block in the place of another shows."""
    block[:8] = offset.to_bytes(8, "little")


def _write_all(descriptor: int, block: mmap.mmap) -> int:
    view = memoryview(block)
    done = 0
    while done < len(view):
        done += os.write(descriptor, view[done:])
    view.release()
    return done


def _go_past_cache(descriptor: int) -> bool:
    """Let what follows come from the disk; return whether the file system takes O_DIRECT."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:
        return False
    return True


def _read_back(descriptor: int, block: mmap.mmap, written: int) -> tuple[int, int, float]:
    """Return bytes read, blocks that are not what was written, and the time of reading (s)."""
    buffer = mmap.mmap(-1, BLOCK_BYTES)
    read, damaged, read_s = 0, 0, 0.0
    while read < written and read_s < LONGEST_S:
        began_s = time.perf_counter()
        count = os.preadv(descriptor, [buffer], read)
        read_s += time.perf_counter() - began_s
        if count < BLOCK_BYTES:
            return read, damaged + 1, read_s
        _number(block, read)
        damaged += buffer[:] != block[:]
        read += count
    return read, damaged, read_s


def judge_storage(fleet: Fleet) -> Iterator[Verdict]:
    """Judge that the same came back, and that it did not take for ever."""
    rates: dict[str, list[tuple[float, float, str]]] = {}
    for host, answer in fleet.answers.get(PROBE, {}).items():
        if answer.error:
            yield not_asked("storage-rate", host, answer.error)
            continue
        seen = answer.value
        if (verdict := _judge_host(host, seen)) is not None:
            yield verdict
        else:
            rate = (_rate(seen, "write"), _rate(seen, "read"), host)
            rates.setdefault(_describe(seen), []).append(rate)
    for words, group in rates.items():
        writes, reads, hosts = zip(*group, strict=True)
        found = f"{words}: write {_span(writes)} with fsync, read {_span(reads)}"
        yield Verdict("storage-rate", PASS, found, hosts=hosts)


def _judge_host(host: str, seen: dict[str, Any]) -> Verdict | None:
    folder = seen["folder"]
    if seen.get("full"):
        found = f"{folder}: {seen['free_bytes'] / 1e6:,.0f} MB free, too little to try"
        least = f"{LEAST_BYTES * PART_OF_FREE / 1e6:,.0f} MB"
        return Verdict("storage-rate", FAIL, found, f"df {folder}, and make room", least, (host,))
    if seen["damaged_blocks"]:
        blocks = seen["written_bytes"] // BLOCK_BYTES
        found = f"{folder}: {seen['damaged_blocks']} of {blocks} blocks came back changed"
        fix = "take this host out of the run; dmesg | grep -iE 'i/o error|nfs|nvme'"
        return Verdict("storage-rate", FAIL, found, fix, "what was written", (host,))
    slowest = min(_rate(seen, "write"), _rate(seen, "read"))
    if slowest < SLOW_BYTES_PER_S:
        found = f"{_describe(seen)}: {slowest / 1e6:.1f} MB/s"
        fix = f"df {folder}; a faster disk: hpctrain run --runs-dir"
        limit = f"{SLOW_BYTES_PER_S / 1e6:.0f} MB/s or more"
        return Verdict("storage-rate", WARN, found, fix, limit, (host,))
    return None


def _describe(seen: dict[str, Any]) -> str:
    way = "past the cache (O_DIRECT)" if seen["direct"] else "perhaps from the cache"
    return f"{seen['folder']}, {seen['written_bytes'] >> 20} MiB a host, reads {way}"


def _rate(seen: dict[str, Any], which: str) -> float:
    count = seen["written_bytes" if which == "write" else "read_bytes"]
    return count / max(seen[f"{which}_s"], 1e-9)


def _span(rates: tuple[float, ...]) -> str:
    """Return the least and the largest rate (bytes/s) in words.

    >>> _span((1e8, 2e8)), _span((1e8,))
    ('0.1 to 0.2 GB/s', '0.1 GB/s')
    """
    low, high = min(rates) / 1e9, max(rates) / 1e9
    return f"{low:.3g} GB/s" if len(rates) == 1 else f"{low:.3g} to {high:.3g} GB/s"


STORAGE_RATE = Check("storage-rate", judge_storage, (Probe(PROBE, probe_storage, PROBE_TIMEOUT_S),),
                     FULL)  # fmt: skip
