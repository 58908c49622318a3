"""When a run saves, and how its ranks agree on it: the loop's view of checkpoints.

A step waits only for a copy of this rank's share into memory of our own. A thread writes it;
at a later step, when every rank's share is on the disk, rank 0 makes the checkpoint complete.
That, and whether a signal has asked to save and leave, travels in one small exchange a step,
sent before the step's work and collected after it, so that nobody waits for it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hpctrain import __version__
from hpctrain.config import Config, as_tables
from hpctrain.errors import CheckpointError
from hpctrain.event_queue import EventQueue
from hpctrain.train import checkpoint_folder as folders
from hpctrain.train.agreement import raise_together
from hpctrain.train.checkpoint_writer import CheckpointWriter, Save, open_root
from hpctrain.train.communicator import Communicator
from hpctrain.train.optimizer import steps_of
from hpctrain.train.restore import Restored, broadcast_text, ranks_that_see, restore
from hpctrain.train.save_signal import hear_save_signal
from hpctrain.train.setup import Setup
from hpctrain.train.snapshot import Snapshot
from hpctrain.train.state import (
    MODEL,
    Piece,
    model_pieces,
    optimizer_pieces,
    optimizer_step,
    rng_state,
    take_share,
)
from hpctrain.train.tokenizer import TOKENIZER_FILE_NAME

RUN_PATH_VARIABLE = "HPCTRAIN_RUN_PATH"


class Checkpoints:
    """Resumes a run, and saves it while it runs.

    A step: :meth:`begin_step`, its work, :meth:`end_step`, and :meth:`save` if that said so.

    Args:
        stateful: further things with ``state_dict`` and ``load_state_dict`` that JSON can hold,
            such as a GradScaler, by name; equal on all ranks.
        sharded: whether each rank's optimizer holds other elements than the others'.
        events: where steps are reported, so that a checkpoint is told behind its step.
    """

    def __init__(
        self, config: Config, setup: Setup, comm: Communicator, optimizer: torch.optim.Optimizer,
        *, events: EventQueue, stateful: Mapping[str, Any] | None = None, sharded: bool = False,
    ) -> None:  # fmt: skip
        self._config, self._setup, self._comm, self._optimizer = config, setup, comm, optimizer
        self._stateful, self._sharded, self._events = dict(stateful or {}), sharded, events
        run_path = os.environ.get(RUN_PATH_VARIABLE)
        self._root = Path(run_path).resolve() / folders.FOLDER if run_path else None
        self._tables = as_tables(config)
        self._digest = folders.digest(json.dumps(self._tables, sort_keys=True))
        self._flags = torch.zeros(3, dtype=torch.float64)
        self._handle: Any = None
        self._writer: CheckpointWriter | None = None
        self._pending: Save | None = None
        self._start = Restored(step=0, tokens=0, path=None)
        self.steps = setup.steps
        """Steps of the whole run; known after :meth:`resume`."""
        self.leaving = False
        """Whether the ranks have agreed to save and leave before the last step."""

    def resume(self) -> int:
        """Go on where `checkpoint.resume` says; return the number of steps that are done.

        Every rank must call this, and call it before the first step.

        Raises:
            CheckpointError: the checkpoint that was asked for is damaged or fits no such run,
                or none can be written.
        """
        model = self._setup.model
        pieces = [*model_pieces(model), *optimizer_pieces(model, self._optimizer)]
        self._start = restore(
            self._config, self._setup, self._comm, self._root, pieces,
            self._optimizer, self._stateful, self._sharded, self._events,
        )  # fmt: skip
        if self._config.checkpoint.save == "on" and self._root is not None:
            self._open_writer(self._root, pieces)
        if (goal := self._config.train.tokens) is not None:
            # What is done was perhaps done in steps of another size.
            left = max(0, goal - self._start.tokens)
            self.steps = self._start.step + steps_of(left, 0, self._setup.tokens_per_step)
        if self._comm.rank == 0:
            _say_where(self._start, self.steps, self._config.train.tokens, self._events)
        return self._start.step

    def tokens_at(self, done: int) -> int:
        """Return how many tokens the run has seen after `done` steps, all ranks together."""
        return self._start.tokens + (done - self._start.step) * self._setup.tokens_per_step

    def begin_step(self) -> None:
        """Tell the other ranks, in the background, what this one knows."""
        if self._writer is not None:
            share = self._pending.share_state() if self._pending is not None else (False, False)
            self._flags[:] = torch.tensor([self._heard(), *share])
            self._handle = self._comm.all_reduce_sum_async(self._flags, "checkpoint.flags")

    def end_step(self, done: int) -> bool:
        """Hear what the others said; return whether to save now, the same on every rank.

        Args:
            done: steps that are done, counted from the run's first.
        """
        if self._writer is None:
            return False
        self._comm.wait(self._handle)
        asked, complete, failed = self._flags.tolist()
        if complete + failed == self._comm.size:
            self._settle(failed > 0)
        every, steps = self._config.checkpoint.every_steps, self.steps
        self.leaving = asked > 0 and done < steps
        return self.leaving or done == steps or (every > 0 and done % every == 0)

    def save(self, done: int) -> None:
        """Save; return as soon as the state may change again.

        At the last step, and where the ranks are leaving, return when the checkpoint is complete.

        Raises:
            CheckpointError: that last checkpoint could not be written.
        """
        assert self._writer is not None
        started_s = time.perf_counter()
        self._finish_pending()  # one copy in memory: the disk was slower than the steps
        rng = rng_state(self._setup.device)
        self._pending = self._writer.start(done, self._facts(done), rng, started_s)
        if not self.leaving and done < self.steps:
            return
        self._finish_pending()
        self._writer.close()
        raise_together(self._comm, self._writer.problem)
        if self.leaving and self._comm.rank == 0:
            self._events.emit("train_stopped", step=done, path=str(self._writer.newest))
            print(f"stopped    at step {done}, saved in {self._writer.newest}", flush=True)

    def describe_last(self) -> str:
        """Return, for the message that ends a run, what it can go on from.

        Every rank must call this, and save no more. A checkpoint that is on its way is completed:
        its state was looked at before it was taken.
        """
        newest = self._start.path
        if self._writer is not None:
            self._finish_pending()
            self._writer.close()
            newest = self._writer.newest
        # Rank 0 alone knows which ones are complete.
        return broadcast_text(
            self._comm, f"The last checkpoint is {newest}." if newest else "There is no checkpoint."
        )

    def _finish_pending(self) -> None:
        """Wait until every rank has written its share; every rank must call this."""
        if self._pending is None:
            return
        self._pending.written.exception()  # waits
        state = torch.tensor(self._pending.share_state(), dtype=torch.float64)
        self._settle(self._comm.all_reduce_sum(state, "checkpoint.shares").tolist()[1] > 0)

    def _settle(self, failed: bool) -> None:
        assert self._writer is not None
        assert self._pending is not None
        self._writer.settle(self._pending, failed=failed)
        self._pending = None

    def _open_writer(self, root: Path, pieces: list[Piece]) -> None:
        comm, problem = self._comm, None
        if comm.rank == 0:
            try:
                open_root(root)
            except CheckpointError as error:
                problem = error
        raise_together(comm, problem)
        writers = ranks_that_see(root / folders.NONCE_NAME, comm)
        if self._sharded and len(writers) < comm.size and comm.rank == 0:
            problem = CheckpointError(
                f"{root}: seen by {len(writers)} of {comm.size} ranks; expected a file system that "
                "all hosts share, which a sharded optimizer needs. Choose another --runs-dir, or "
                "set optim.sharded=false or checkpoint.save=off."
            )
        raise_together(comm, problem)
        if comm.rank == 0:
            self._set_aside(root)  # only now: a run that is refused leaves all where it was
        mine: list[Piece] = []
        if comm.rank in writers:
            # A sharded optimizer's moments are nobody else's to write; the model is everybody's.
            everybodys = [p for p in pieces if not self._sharded or p.name.startswith(MODEL)]
            mine = take_share(everybodys, writers.index(comm.rank), len(writers))
            mine += pieces[len(everybodys) :]
        snapshot = Snapshot(mine, self._setup.device)
        self._writer = CheckpointWriter(
            root, self._config.checkpoint, comm.rank, writers, snapshot, self._start.path,
            events=self._events, attached=self._attached(),
        )  # fmt: skip
        self._heard = hear_save_signal()

    def _attached(self) -> dict[str, bytes]:
        """Return the files that make a checkpoint's tokens text again, by name."""
        content = self._setup.data.tokenizer_content if self._comm.rank == 0 else None
        return {} if content is None else {TOKENIZER_FILE_NAME: content}

    def _set_aside(self, root: Path) -> None:
        """Keep checkpoints out of the way that this run does not go on from."""
        is_own = self._start.path is not None and self._start.path.parent == root
        steps = folders.list_steps(root)
        for path in folders.set_aside(
            root, [step for step in steps if not is_own or step > self._start.step]
        ):
            print(f"set aside  {path}: this run begins before it", flush=True)
        folders.write_latest(root)

    def _facts(self, done: int) -> dict[str, Any]:
        """Return what the index says besides the tensors."""
        setup = self._setup
        return {
            "schema": folders.SCHEMA, "step": done, "tokens": self.tokens_at(done),
            "size": self._comm.size, "global_batch_size": setup.global_batch,
            "seed": self._config.train.seed, "data_digest": setup.data.digest,
            "tokenizer": setup.data.tokenizer, "end_token": setup.data.end_token,
            "optimizer_step": optimizer_step(self._optimizer),
            "state": {name: part.state_dict() for name, part in self._stateful.items()},
            "config": self._tables, "config_digest": self._digest,
            "created": {"time_s": round(time.time(), 3), "hpctrain": __version__,
                        "torch": torch.__version__},
        }  # fmt: skip


def _say_where(start: Restored, steps: int, token_goal: int | None, events: EventQueue) -> None:
    if start.path is None:
        return
    events.emit("resumed", step=start.step, path=str(start.path), tokens=start.tokens)
    print(f"resumed    {start.path}: step {start.step}, {start.tokens:,} tokens", flush=True)
    if start.step >= steps:
        goal = f"train.steps = {steps}" if token_goal is None else f"train.tokens = {token_goal}"
        print(f"done       nothing is left to do: {goal}. Raise it to train on", flush=True)
