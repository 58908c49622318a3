"""Checkpoints on disk: what lies where, how one becomes complete, which ones are kept.

::

    checkpoints/
      latest                        the name of the newest complete one
      step-00001000/
        index.json                  step, configuration, checksums, where each tensor's pieces are
        rank-00000.safetensors      what rank 0 wrote, and so on
      .step-00002000.1.tmp/         being written by attempt 1, or left by a run that was killed
      set-aside/                    checkpoints that a run went back behind

A checkpoint is made under its temporary name, flushed to disk, and renamed: it is complete or
absent, never half. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpctrain.errors import CheckpointError
from hpctrain.train.tensor_file import hash_file, sync_folder, write_file

SCHEMA = 1
FOLDER = "checkpoints"
INDEX_NAME = "index.json"
LATEST_NAME = "latest"
SET_ASIDE = "set-aside"
NONCE_NAME = ".nonce"  # by which ranks find out whether they see the same folder
_STEP_NAME = re.compile(r"step-(\d{8,})")


def step_name(step: int) -> str:
    """Return the name of a step's checkpoint.

    >>> step_name(1000)
    'step-00001000'
    """
    return f"step-{step:08d}"


def share_name(rank: int) -> str:
    """Return the name of the file that a rank writes."""
    return f"rank-{rank:05d}.safetensors"


def temporary_path(root: Path, step: int) -> Path:
    """Return where a step's checkpoint is while it is being written.

    Each attempt has a name of its own: a rank of an earlier one that is cut off, and does not know
    it yet, must not write into it. Rank 0 alone renames it, so its host alone is waited for.
    """
    attempt = os.environ.get("HPCTRAIN_ATTEMPT_NUMBER", "1")
    return root / f".{step_name(step)}.{attempt}.tmp"


def list_steps(root: Path) -> list[int]:
    """Return the steps that have a complete checkpoint, in rising order."""
    if not root.is_dir():
        return []
    names = (_STEP_NAME.fullmatch(path.name) for path in root.iterdir())
    return sorted(int(match.group(1)) for match in names if match)


# -- one checkpoint ------------------------------------------------------------------------------


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write the index, with a checksum of its own."""
    text = _canonical(index)
    record = {"sha256": digest(text), "index": index}
    write_file(folder / INDEX_NAME, [json.dumps(record, indent=1).encode() + b"\n"])


def read_index(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's index.

    Raises:
        CheckpointError: it is missing, damaged, or of another version of hpctrain.
    """
    path = folder / INDEX_NAME
    try:
        record = json.loads(path.read_bytes())
        index, expected = record["index"], record["sha256"]
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: is missing; expected a checkpoint's folder. See: ls {folder.parent}"
        ) from None
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot be read: {problem.strerror}.") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise CheckpointError(f"{path}: is damaged: no index in it.") from problem
    if digest(_canonical(index)) != expected:
        raise CheckpointError(f"{path}: is damaged: its content does not have its checksum.")
    if index["schema"] != SCHEMA:
        raise CheckpointError(
            f"{path}: of another version of hpctrain, got schema {index['schema']}; expected "
            f"{SCHEMA}."
        )
    return index


def find_damage(folder: Path, index: Mapping[str, Any], part: int = 0, parts: int = 1) -> list[str]:
    """Return what is wrong with a checkpoint's files: one message a file.

    Args:
        part: look at every `parts`-th file only, beginning with this one, so that ranks share
            the work.
    """
    problems = []
    for name in sorted(index["files"])[part::parts]:
        path, expected = folder / name, index["files"][name]
        try:
            size_bytes = path.stat().st_size
            if size_bytes != expected["bytes"]:
                problems.append(f"{path}: got {size_bytes} bytes; expected {expected['bytes']}")
            elif (found := hash_file(path)) != expected["sha256"]:
                problems.append(
                    f"{path}: other content than was written, got sha256 {found[:12]}…; "
                    f"expected {expected['sha256'][:12]}…"
                )
        except FileNotFoundError:
            problems.append(f"{path}: is missing")
        except OSError as problem:
            problems.append(f"{path}: cannot be read: {problem.strerror}")
    return problems


def index_tensors(shares: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return where each tensor's pieces are, from what the ranks say that they wrote.

    Raises:
        CheckpointError: a tensor is not there as a whole.
    """
    tensors: dict[str, Any] = {}
    for share in shares:
        for piece in share["pieces"]:
            known = tensors.setdefault(
                piece["name"], {"dtype": piece["dtype"], "shape": piece["shape"], "pieces": []}
            )
            known["pieces"].append([piece["begin"], piece["end"], share["file"], piece["key"]])
    for name, tensor in tensors.items():
        tensor["pieces"].sort()
        elements = 1
        for length in tensor["shape"]:
            elements *= length
        begins = [piece[0] for piece in tensor["pieces"]] + [elements]
        ends = [0] + [piece[1] for piece in tensor["pieces"]]
        if begins != ends:
            raise CheckpointError(f"{name}: the ranks' shares do not make up the tensor.")
    return tensors


def commit(root: Path, step: int, index: Mapping[str, Any]) -> Path:
    """Turn the temporary folder into the step's checkpoint and name it the latest.

    Raises:
        OSError: the disk will not be written.
    """
    temporary, target = temporary_path(root, step), root / step_name(step)
    write_index(temporary, index)
    sync_folder(temporary)
    if target.exists():  # only where somebody copied it there while the run was running
        set_aside(root, [step])
    temporary.rename(target)
    sync_folder(root)
    write_latest(root)
    return target


def write_latest(root: Path) -> None:
    """Name the newest complete checkpoint in `latest`; without one, there is no such file."""
    steps = list_steps(root)
    if steps:
        temporary = root / f".{LATEST_NAME}.tmp"
        write_file(temporary, [step_name(steps[-1]).encode() + b"\n"])
        temporary.rename(root / LATEST_NAME)
    else:
        (root / LATEST_NAME).unlink(missing_ok=True)
    sync_folder(root)


# -- all of them ---------------------------------------------------------------------------------


def choose_expired(steps: Sequence[int], keep_last: int, keep_every_steps: int) -> list[int]:
    """Return the steps whose checkpoints may go.

    >>> choose_expired([100, 200, 300, 400, 500], keep_last=2, keep_every_steps=200)
    [100, 300]
    """
    old = sorted(steps)[:-keep_last]
    return [step for step in old if not keep_every_steps or step % keep_every_steps]


def remove_expired(root: Path, keep_last: int, keep_every_steps: int) -> None:
    """Remove old checkpoints; each is gone as a whole at once, for it gets another name first."""
    for step in choose_expired(list_steps(root), keep_last, keep_every_steps):
        doomed = root / f".{step_name(step)}.removed"
        (root / step_name(step)).rename(doomed)
        shutil.rmtree(doomed)


def set_aside(root: Path, steps: Sequence[int]) -> list[Path]:
    """Move checkpoints out of the way of a run that goes another way; return where they are."""
    moved = []
    for step in steps:
        (root / SET_ASIDE).mkdir(exist_ok=True)
        taken = len([p for p in (root / SET_ASIDE).iterdir() if p.name.startswith(step_name(step))])
        target = root / SET_ASIDE / (step_name(step) + (f".{taken}" if taken else ""))
        (root / step_name(step)).rename(target)
        moved.append(target)
    return moved


def remove_leftovers(root: Path) -> None:
    """Remove what a run that was killed was just writing or removing."""
    for path in root.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)  # a rank that is cut off may be writing there


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a person means: itself, or the latest of a run's folder.

    Raises:
        CheckpointError: there is none.
    """
    for folder in (path, path / FOLDER):
        if (folder / INDEX_NAME).exists():
            return folder
        if steps := list_steps(folder):
            return folder / step_name(steps[-1])
    raise CheckpointError(
        f"{path}: holds no complete checkpoint; expected a folder like "
        f"runs/NAME/{FOLDER}/{step_name(1000)}, or a run's. See: hpctrain runs list"
    )


def digest(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(index: Mapping[str, Any]) -> str:
    return json.dumps(index, sort_keys=True, separators=(",", ":"))
