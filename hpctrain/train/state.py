"""What a checkpoint holds of a rank, as named pieces of tensors.

A name says which parameter, and which of its values: ``model/norm.weight``,
``optimizer/exp_avg/norm.weight``. Nothing in it depends on the number of ranks or on how
parameters lie in flat buckets, so whoever reads them may have others of both.

The optimizer's flat tensors are matched to the model's parameters by memory: a parameter that
lies in a flat tensor has its moments at the same place in the flat moments.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hpctrain.errors import CheckpointError, raise_all
from hpctrain.train.tensor_file import TensorEntry

MODEL, OPTIMIZER = "model", "optimizer"
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Piece(NamedTuple):
    """Elements [begin, end) of a tensor, and the memory that holds them, flat."""

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int
    values: Tensor

    @property
    def key(self) -> str:
        """What the piece is called in a rank's file: the plain name where it is all there is."""
        return self.name if self.is_whole else f"{self.name}[{self.begin}:{self.end}]"

    @property
    def is_whole(self) -> bool:
        return self.end - self.begin == int(np.prod(self.shape))

    @property
    def entry(self) -> TensorEntry:
        shape = self.shape if self.is_whole else (self.end - self.begin,)
        return TensorEntry(self.key, _DTYPES[self.values.dtype], shape)

    def describe(self) -> dict[str, Any]:
        """Return what the index says of it."""
        return {
            "name": self.name, "dtype": self.entry.dtype, "shape": list(self.shape),
            "begin": self.begin, "end": self.end, "key": self.key,
        }  # fmt: skip


def model_pieces(model: nn.Module) -> list[Piece]:
    """Return all parameters and buffers of a model, whole."""
    named = [*model.named_parameters(), *_persistent_buffers(model)]
    return [_whole(f"{MODEL}/{name}", tensor) for name, tensor in named]


def optimizer_pieces(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Piece]:
    """Return the moments that this rank's optimizer holds; of a sharded one, its shard.

    Moments that do not exist before the first step are made, as zeros.
    """
    flats = [
        (flat, group) for group in optimizer.param_groups for flat in group["params"]
        if flat.requires_grad
    ]  # fmt: skip
    pieces = []
    for name, parameter in model.named_parameters():
        for flat, group in flats:
            begin, end, offset = _overlap(parameter, flat)
            if begin >= end:
                continue
            state = _ensure_state(optimizer, flat, group)
            for moment in MOMENTS:
                values = state[moment].view(-1)[offset : offset + end - begin]
                full = f"{OPTIMIZER}/{moment}/{name}"
                pieces.append(Piece(full, tuple(parameter.shape), begin, end, values))
    return pieces


def optimizer_step(optimizer: torch.optim.Optimizer) -> int:
    """Return how many steps the optimizer has taken; AdamW corrects its moments by it."""
    # All tensors are stepped together, and each look at one on a GPU would wait for it.
    of_tensors = next((int(state["step"]) for state in optimizer.state.values()), 0)
    # apex's FusedAdam counts in its groups.
    return max(of_tensors, *(int(group.get("step", 0)) for group in optimizer.param_groups))


def set_optimizer_step(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Let the optimizer believe that it has taken `step` steps."""
    for state in optimizer.state.values():
        state["step"].fill_(step)
    for group in optimizer.param_groups:
        group["step"] = step


def take_share(pieces: Sequence[Piece], rank: int, size: int) -> list[Piece]:
    """Return the part of the pieces that is one rank's to write; all ranks' are equal in bytes.

    Every rank must hold the same pieces. They are cut where a share ends.
    """
    total = sum(piece.values.nbytes for piece in pieces)
    first, last = rank * total // size, (rank + 1) * total // size
    mine, offset = [], 0
    for piece in pieces:
        item = piece.values.element_size()
        begin = max(0, min(piece.values.numel(), -((offset - first) // item)))
        end = max(0, min(piece.values.numel(), -((offset - last) // item)))
        if begin < end:
            mine.append(
                piece._replace(
                    begin=piece.begin + begin, end=piece.begin + end,
                    values=piece.values[begin:end],
                )
            )  # fmt: skip
        offset += piece.values.nbytes
    return mine


def read_pieces(folder: Path, index: Mapping[str, Any], pieces: Sequence[Piece]) -> None:
    """Fill pieces from a checkpoint, whichever ranks wrote them.

    Raises:
        CheckpointError: the checkpoint has other tensors than this model.
    """
    from safetensors import safe_open

    _check_fit(folder, index, pieces)
    files: dict[str, Any] = {}
    with torch.no_grad():
        for piece in pieces:
            for begin, end, file, key in index["tensors"][piece.name]["pieces"]:
                first, last = max(begin, piece.begin), min(end, piece.end)
                if first >= last:
                    continue
                if file not in files:
                    files[file] = safe_open(folder / file, framework="pt")
                stored = files[file].get_tensor(key).view(-1)
                piece.values[first - piece.begin : last - piece.begin].copy_(
                    stored[first - begin : last - begin]
                )


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every random number generator of this rank."""
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def encode_rng(state: Mapping[str, Any]) -> str:
    """Return what :func:`rng_state` returned as text."""

    def encode(value: Any) -> Any:
        return value.numpy().tobytes().hex() if isinstance(value, Tensor) else value.tolist()

    return json.dumps(state, separators=(",", ":"), default=encode)


def restore_rng(text: str, device: torch.device) -> None:
    """Continue with the random numbers that came next when the state was taken."""
    state = json.loads(text)
    torch.set_rng_state(_from_hex(state["torch"]))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, key, *rest = state["numpy"]
    np.random.set_state((kind, np.array(key, dtype=np.uint32), *rest))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_from_hex(state["cuda"]), device)


def seed_rng(seed: int, step: int, rank: int) -> None:
    """Start random numbers of this rank's own, where there are none to continue."""
    root = np.random.SeedSequence([seed, step, rank])
    for_torch, for_numpy, for_python = (int(word) for word in root.generate_state(3))
    torch.manual_seed(for_torch)  # every CUDA device too
    np.random.seed(for_numpy)
    random.seed(for_python)


def _persistent_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    saved = model.state_dict(keep_vars=True)
    return ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def _whole(name: str, tensor: Tensor) -> Piece:
    flat = tensor.detach().view(-1)
    return Piece(name, tuple(tensor.shape), 0, flat.numel(), flat)


def _overlap(parameter: Tensor, flat: Tensor) -> tuple[int, int, int]:
    """Return which elements of `parameter` lie in `flat`, and where there the first one lies."""
    distance = (parameter.data_ptr() - flat.data_ptr()) // parameter.element_size()
    begin = max(0, -distance)
    end = min(parameter.numel(), flat.numel() - distance)
    return begin, end, distance + begin


def _ensure_state(
    optimizer: torch.optim.Optimizer, flat: Tensor, group: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the state of one of AdamW's tensors, made as AdamW itself makes it."""
    state = optimizer.state[flat]
    if not state:
        on_device = group.get("fused") or group.get("capturable")
        state["step"] = torch.zeros((), device=flat.device if on_device else "cpu")
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(flat, requires_grad=False)
    return state


def _check_fit(folder: Path, index: Mapping[str, Any], pieces: Sequence[Piece]) -> None:
    stored, errors = index["tensors"], []
    for piece in pieces:
        if piece.name not in stored:
            errors.append(f"{folder}: has no {piece.name}, which this model has.")
        elif tuple(stored[piece.name]["shape"]) != piece.shape:
            errors.append(
                f"{folder}: {piece.name} has another shape, got {stored[piece.name]['shape']}; "
                f"expected {list(piece.shape)}."
            )
    if errors:
        more = f" And {len(errors) - 3} more." if len(errors) > 3 else ""
        errors = errors[:3]
        errors[-1] += (
            f"{more} It is of another model: give the run that model's settings, or start anew "
            "under another --name."
        )
    raise_all(CheckpointError, errors)


def _from_hex(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
