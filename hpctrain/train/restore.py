"""Where a run goes on: find a checkpoint that is whole, and put it into model and optimizer.

Rank 0 decides and tells the others, so that all take the same one. Hosts that do not see rank
0's folder get the state from rank 0 instead of from the disk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpctrain.config import Config, as_tables
from hpctrain.errors import CheckpointError, HpctrainError
from hpctrain.event_queue import EventQueue
from hpctrain.train import checkpoint_folder as folders
from hpctrain.train.agreement import raise_together
from hpctrain.train.communicator import Communicator
from hpctrain.train.setup import Setup
from hpctrain.train.snapshot import RNG_KEY
from hpctrain.train.state import (
    Piece,
    read_pieces,
    restore_rng,
    seed_rng,
    set_optimizer_step,
)
from hpctrain.train.tensor_file import read_header

# Settings under which a run sees other samples, rates or losses than before.
_COMPARED = ("model", "data", "train", "optim")
_HARMLESS = ("train.log_every_steps", "train.eval_every_steps", "train.eval_sequences",
             "train.device", "data.path", "data.tokenizer", "train.batch_size_per_rank",
             "train.global_batch_size", "train.grad_accum_steps", "train.activation_checkpointing",
             "optim.sharded")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Restored:
    """Where a run begins: `path` is None at step 0."""

    step: int
    tokens: int
    path: Path | None


def restore(
    config: Config, setup: Setup, comm: Communicator, root: Path | None, pieces: Sequence[Piece],
    optimizer: torch.optim.Optimizer, stateful: Mapping[str, Any], sharded: bool,
    events: EventQueue,
) -> Restored:  # fmt: skip
    """Fill `pieces`, the optimizer's step, `stateful` and the random numbers; all ranks together.

    Raises:
        CheckpointError: on every rank, where the checkpoint that was asked for is damaged, or
            the one that was found is another model's.
    """
    path, index = choose_checkpoint(config.checkpoint.resume, root, comm, events)
    if path is None or index is None:
        seed_rng(config.train.seed, 0, comm.rank)  # models are built alike; dropout must differ
        return Restored(step=0, tokens=0, path=None)
    readers = ranks_that_see(path / folders.INDEX_NAME, comm)
    problem: HpctrainError | None = None
    try:
        if comm.rank in readers:
            # Nobody writes here any more: what is read is what was proven whole.
            read_pieces(path, index, pieces)
        elif sharded:
            raise CheckpointError(
                f"rank {comm.rank}: does not see {path}; expected a file system that all hosts "
                "share, which a sharded optimizer needs."
            )
    except HpctrainError as error:
        problem = error
    except (OSError, ValueError) as error:
        problem = CheckpointError(f"{path}: cannot be read: {error}.")
    raise_together(comm, problem)
    if len(readers) < comm.size:
        for number, piece in enumerate(pieces):
            comm.broadcast(piece.values, f"checkpoint.{number}")
    set_optimizer_step(optimizer, index["optimizer_step"])
    for name, part in stateful.items():
        if name in index["state"]:
            part.load_state_dict(index["state"][name])
    _restore_random(config, setup, comm, path, index, comm.rank in readers)
    if comm.rank == 0:
        for line in describe_changes(config, setup, index, comm.size):
            print(f"warning: {path.name}: {line}", file=sys.stderr, flush=True)
    return Restored(step=index["step"], tokens=index["tokens"], path=path)


def choose_checkpoint(
    wanted: str, root: Path | None, comm: Communicator, events: EventQueue
) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the checkpoint that `checkpoint.resume` means, proven whole, and its index.

    Raises:
        CheckpointError: a checkpoint was asked for by its path and is missing or damaged.
    """
    if wanted == "none":
        return None, None
    is_auto, found, problem = wanted == "auto", [], None
    if comm.rank == 0:
        try:
            found = _list_newest_first(root) if is_auto else [folders.find_checkpoint(Path(wanted))]
        except CheckpointError as error:
            problem = error
    raise_together(comm, problem)
    names = json.loads(broadcast_text(comm, json.dumps([str(path.resolve()) for path in found])))
    for path in map(Path, names):
        index, damage = _check_together(path, comm)
        if index is not None:
            return path, index
        if not is_auto:
            error = CheckpointError(*(f"checkpoint.resume: {line}." for line in damage))
            raise_together(comm, error if damage else None)
        for line in damage:
            events.emit("alert", alert="checkpoint_damaged", detail=line)
            print(f"warning: {line}; going back to the checkpoint before it", file=sys.stderr,
                  flush=True)  # fmt: skip
    return None, None


def ranks_that_see(file: Path, comm: Communicator) -> list[int]:
    """Return the ranks on whose hosts `file` has rank 0's content."""
    seen = torch.zeros(comm.size, dtype=torch.float64)
    try:
        mine = int(folders.digest(file.read_bytes().hex())[:15], 16)
    except OSError:
        mine = -1 - comm.rank
    first = int(comm.broadcast(torch.tensor([mine]), "checkpoint.seen_by_first"))
    seen[comm.rank] = float(mine == first)
    return comm.all_reduce_sum(seen, "checkpoint.seen").nonzero().flatten().tolist()


def describe_changes(
    config: Config, setup: Setup, index: Mapping[str, Any], size: int
) -> list[str]:
    """Return how this run differs from the one that was saved, where it shows in the losses."""
    changes = []
    if index["data_digest"] != setup.data.digest:
        changes.append(f"it was trained on other data than {setup.data.description}")
    before = index["global_batch_size"]
    if before != setup.global_batch:
        changes.append(
            f"a step had {before} sequences and has {setup.global_batch} now, so samples and "
            f"losses are others. For the same run: --set train.global_batch_size={before}"
        )
    scaling = config.optim.lr_scaling
    if scaling != "none" and index["size"] != size:
        changes.append(
            f"optim.lr was scaled to {index['size']} ranks and is to {size} now "
            f"(optim.lr_scaling = {scaling})"
        )
    now = as_tables(config)
    for section in _COMPARED:
        before = index["config"].get(section, {})
        for key, value in now[section].items():
            was = before.get(key, value)  # an older version had no such setting
            if was != value and f"{section}.{key}" not in _HARMLESS:
                changes.append(f"{section}.{key} was {was} and is {value} now")
    return changes


def _check_together(path: Path, comm: Communicator) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the checkpoint's index if all of it is whole, and what this rank found damaged."""
    text, damage = "", []
    if comm.rank == 0:
        try:
            text = json.dumps(folders.read_index(path))
        except CheckpointError as problem:
            damage = [message.removesuffix(".") for message in problem.messages]
    text = broadcast_text(comm, text)
    if not text:
        return None, damage
    index = json.loads(text)
    readers = ranks_that_see(path / folders.INDEX_NAME, comm)
    if comm.rank in readers:
        part, parts = readers.index(comm.rank), len(readers)
        damage = folders.find_damage(path, index, part, parts)
    found = torch.tensor([float(len(damage))], dtype=torch.float64)
    is_whole = comm.all_reduce_sum(found, "checkpoint.damage").item() == 0
    return (index if is_whole else None), damage


def _restore_random(
    config: Config, setup: Setup, comm: Communicator, path: Path, index: Mapping[str, Any],
    is_reader: bool,
) -> None:  # fmt: skip
    """Continue this rank's random numbers, or begin others where the ranks are not the same."""
    own = folders.share_name(comm.rank)
    if index["size"] == comm.size and own in index["files"] and is_reader:
        header, _ = read_header(path / own)
        restore_rng(header["__metadata__"][RNG_KEY], setup.device)
    else:
        seed_rng(config.train.seed, index["step"], comm.rank)


def _list_newest_first(root: Path | None) -> list[Path]:
    if root is None:
        return []
    return [root / folders.step_name(step) for step in reversed(folders.list_steps(root))]


def broadcast_text(comm: Communicator, text: str) -> str:
    """Return rank 0's text on every rank."""
    if comm.size == 1:
        return text
    data = text.encode()
    length = int(comm.broadcast(torch.tensor([len(data)]), "checkpoint.length"))
    if length == 0:
        return ""
    buffer = torch.zeros(length, dtype=torch.uint8)
    if comm.rank == 0:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    # Horovod knows a tensor by its name and wants one shape under it.
    return bytes(comm.broadcast(buffer, f"checkpoint.text.{length}").tolist()).decode()
