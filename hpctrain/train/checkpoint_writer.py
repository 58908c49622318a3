"""The background side of saving: one thread a rank that writes its share, and on rank 0 makes
checkpoints complete and removes old ones."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.config.schema import CheckpointConfig
from hpctrain.errors import CheckpointError
from hpctrain.event_queue import EventQueue
from hpctrain.train import checkpoint_folder as folders
from hpctrain.train.snapshot import Snapshot, part_path
from hpctrain.train.tensor_file import write_file


@dataclass(slots=True)
class Save:
    """A checkpoint that is not complete yet; `facts` is its index but for the tensors."""

    step: int
    facts: dict[str, Any]
    stall_s: float
    started_s: float
    written: Future[None]

    def share_state(self) -> tuple[bool, bool]:
        """Return whether this rank's share is on the disk, and whether it failed to get there."""
        if not self.written.done():
            return False, False
        failed = self.written.exception() is not None
        return not failed, failed


class CheckpointWriter:
    """Writes one run's checkpoints; what it is asked to do happens in that order.

    Args:
        writers: the ranks that write a share each.
        snapshot: this rank's share.
        newest: the newest complete checkpoint so far.
        events: where to report.
        attached: on rank 0, further files of every checkpoint, by name.
    """

    def __init__(
        self, root: Path, config: CheckpointConfig, rank: int, writers: Sequence[int],
        snapshot: Snapshot, newest: Path | None, *, events: EventQueue | None = None,
        attached: Mapping[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        self._root, self._config = root, config
        self._rank, self._writers, self._snapshot = rank, writers, snapshot
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._events = events or EventQueue()
        self._attached = attached or {}
        self.newest = newest
        self.problem: CheckpointError | None = None
        """Why the checkpoint that was tried last is not there."""

    def start(
        self, step: int, facts: dict[str, Any], rng: dict[str, Any], started_s: float
    ) -> Save:
        """Copy the state now, and write the copy in the background."""
        self._snapshot.take()
        folder = folders.temporary_path(self._root, step)
        stall_s = time.perf_counter() - started_s
        return Save(step, facts, stall_s, started_s, self._thread.submit(self._write, folder, rng))

    def settle(self, save: Save, *, failed: bool) -> None:
        """Complete a checkpoint whose shares are all written, or drop it if one `failed`."""
        self.problem = None
        own = save.written.exception()
        if own is not None:
            self._warn(save.step, own)
        if self._rank == 0:
            self._thread.submit(self._drop if failed else self._commit, save)

    def close(self) -> None:
        """Return when all is done."""
        self._thread.shutdown()

    def _write(self, folder: Path, rng: dict[str, Any]) -> None:
        if self._rank in self._writers:
            self._snapshot.write(folder, self._rank, rng)

    def _commit(self, save: Save) -> None:
        temporary = folders.temporary_path(self._root, save.step)
        try:
            parts = [part_path(temporary, rank) for rank in self._writers]
            shares = [json.loads(part.read_bytes()) for part in parts]
            files = {s["file"]: {"bytes": s["bytes"], "sha256": s["sha256"]} for s in shares}
            tensors = folders.index_tensors(shares)
            for part in parts:
                part.unlink()
            for name, content in self._attached.items():
                written = write_file(temporary / name, [content])
                files[name] = {"bytes": written.size_bytes, "sha256": written.sha256}
            index = {**save.facts, "files": files, "tensors": tensors}
            # A run that is killed now and goes on from here reports no earlier step again.
            self._events.flush()
            self.newest = folders.commit(self._root, save.step, index)
            self.problem = None
            self._events.emit(
                "checkpoint", step=save.step, path=f"{folders.FOLDER}/{self.newest.name}",
                bytes=sum(file["bytes"] for file in files.values()), stall_s=save.stall_s,
                write_s=time.perf_counter() - save.started_s,
            )  # fmt: skip
            folders.remove_expired(
                self._root, self._config.keep_last, self._config.keep_every_steps
            )
        except (OSError, ValueError, CheckpointError) as problem:
            self._warn(save.step, problem)

    def _drop(self, save: Save) -> None:
        shutil.rmtree(folders.temporary_path(self._root, save.step), ignore_errors=True)

    def _warn(self, step: int, problem: BaseException) -> None:
        """Training goes on without this checkpoint; only a run's last one is worth an error."""
        self.problem = CheckpointError(
            f"{self._root}: the checkpoint of step {step} could not be written: {problem}. Make "
            "room, or choose another --runs-dir."
        )
        print(f"warning: {self.problem}", file=sys.stderr, flush=True)


def open_root(root: Path) -> None:
    """Make the folder of a run's checkpoints, and clear what a killed run has left there.

    Raises:
        CheckpointError: it cannot be made or written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        folders.remove_leftovers(root)
        (root / folders.NONCE_NAME).write_text(os.urandom(16).hex())
    except OSError as problem:
        raise CheckpointError(
            f"{root}: cannot be written: {problem.strerror}. Checkpoints are there; choose "
            "another --runs-dir, or train without: --set checkpoint.save=off"
        ) from problem
