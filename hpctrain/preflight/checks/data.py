"""Is the prepared data there on every host, whole, fit for the model, and the same?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpctrain.errors import ConfigError, HpctrainError
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.show import name_hosts
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, Verdict

CODE = "data"
TIMEOUT_S = 60.0
# What is read of each file, so that a thousand hosts do not read a terabyte each: small files
# whole, of larger ones blocks that are spread evenly, the first and the last among them.
WHOLE_BYTES, BLOCK_BYTES, BLOCKS = 4 << 20, 64 << 10, 8
MAX_FILES_READ = 256  # of more, this many are read, spread evenly; the others by size alone


def look_at_data(task: NodeTask) -> dict[str, Any]:
    """Open the data as a rank would, then read a bounded part of every file."""
    data = task.config.get("data")
    if not data or data["factory"] is not None:
        return {}
    from hpctrain.config import config_from_tables
    from hpctrain.train.prepared import open_prepared
    from hpctrain.train.presets import resolve_model

    try:
        config = config_from_tables(task.config)
        prepared = open_prepared(config.data)
        try:
            size = resolve_model(config.model)
        except ConfigError:  # which is the configuration's to say
            problems = []
        else:
            problems = prepared.problems(size, config.data.tokenizer)
    except HpctrainError as wrong:
        return {"problems": list(wrong.messages)}
    except OSError as wrong:
        return {"problems": [str(wrong)]}
    files: dict[str, str] = {}
    read, total_bytes = 0, 0
    for name, index in zip(prepared.names, prepared.indexes, strict=True):
        listed = [shard for split in index.splits.values() for shard in split.shards]
        if index.tokenizer_file is not None:
            listed.append(index.tokenizer_file)
        for place, file in enumerate(listed):
            path = Path(name) / file.file
            total_bytes += file.size_bytes
            if not is_read(place, len(listed)):
                files[str(path)] = f"{file.size_bytes} bytes"
                continue
            read += 1
            try:
                digest, whole = digest_file(path)
            except OSError as wrong:
                problems.append(f"{path}: cannot be read: {wrong.strerror}")
                continue
            if whole and digest != file.sha256:
                problems.append(f"{path}: damaged, its sha256 is not the index's")
            files[str(path)] = digest[:16]
    return {
        "problems": problems, "files": files, "read": read, "bytes": total_bytes,
        "digest": prepared.digest,
    }  # fmt: skip


def is_read(place: int, count: int, limit: int = MAX_FILES_READ) -> bool:
    """Return whether a file of `count` is among those that are read; spread evenly.

    >>> [place for place in range(10) if is_read(place, 10, limit=3)]
    [0, 4, 7]
    """
    return count <= limit or place == 0 or place * limit // count != (place - 1) * limit // count


def digest_file(path: Path) -> tuple[str, bool]:
    """Return a file's sha256, and whether it is that of the whole file, not of blocks of it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        size_bytes = stream.seek(0, 2)
        if size_bytes <= WHOLE_BYTES:
            stream.seek(0)
            digest.update(stream.read())
            return digest.hexdigest(), True
        for block in range(BLOCKS):
            stream.seek(block * (size_bytes - BLOCK_BYTES) // (BLOCKS - 1))
            digest.update(stream.read(BLOCK_BYTES))
    digest.update(b"%d" % size_bytes)
    return digest.hexdigest(), False


def judge_data(fleet: Fleet) -> Iterator[Verdict]:
    """Say what is wrong with each host's data, then whether all hosts have the same."""
    good: dict[str, Mapping[str, Any]] = {}
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
        elif not answer.value:
            yield Verdict(CODE, SKIP, "no prepared data is read by this", hosts=(host,))
        elif answer.value["problems"]:
            for problem in answer.value["problems"]:
                fix = "hpctrain data prepare, or bring it there: hpctrain run --sync"
                yield Verdict(CODE, FAIL, problem, fix, hosts=(host,))
        else:
            good[host] = answer.value
    groups = differing({host: _fingerprint(value) for host, value in good.items()})
    if not groups:
        return
    usual, *others = groups
    hosts = groups[usual]
    yield Verdict(CODE, PASS, _describe(good[hosts[0]]), hosts=tuple(hosts))
    for other in others:
        names = _differing_files(good[groups[other][0]], good[hosts[0]])
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        found = f"other data than on {name_hosts(hosts, len(fleet.hosts))}: {shown}"
        fix = "hpctrain data prepare, or bring it there: hpctrain run --sync"
        inside = [os.path.dirname(name) for name in (*names, *good[hosts[0]]["files"])]
        if any(inside):
            folder = os.path.join(fleet.tasks[hosts[0]].cwd, next(filter(None, inside)))
            fix = f"on {groups[other][0]}: rsync -a {hosts[0]}:{folder}/ {folder}/"
        yield Verdict(CODE, FAIL, found, fix, f"digest {good[hosts[0]]['digest']}",
                      tuple(groups[other]))  # fmt: skip


def _fingerprint(value: Mapping[str, Any]) -> tuple[Any, ...]:
    return value["digest"], tuple(sorted(value["files"].items()))


def _differing_files(value: Mapping[str, Any], usual: Mapping[str, Any]) -> Sequence[str]:
    names = sorted({*value["files"], *usual["files"]})
    differ = [name for name in names if value["files"].get(name) != usual["files"].get(name)]
    return differ or ["index.json"]


def _describe(value: Mapping[str, Any]) -> str:
    count, read = len(value["files"]), value["read"]
    part = "all" if read == count else f"{read}"
    return (
        f"{count} files, {value['bytes'] / 1e6:.0f} MB, digest {value['digest']}; {part} of them "
        f"read: up to {WHOLE_BYTES >> 20} MiB whole against their checksums, of larger ones "
        f"{BLOCKS} blocks of {BLOCK_BYTES >> 10} KiB"
    )


DATA = Check(CODE, judge_data, (Probe(CODE, look_at_data, TIMEOUT_S),))
