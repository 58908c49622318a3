"""The faults: each disturbs a training at a random moment, and says what must follow."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faulting.nodes import Nodes
from faulting.training import Training

DEAD_RANK_S, BLACK_HOLE_S = 5.0, 30.0
DISK_BYTES = 8 << 20
SECOND_CHECKPOINT = 22
"""By then there are two: one is damaged, the one before it is gone on from."""


@dataclass(frozen=True)
class Injection:
    """What was done to a training.

    Args:
        at_s: when (wall clock).
        rank: whose fault it is; None where it is no rank's.
        note: in words.
    """

    at_s: float
    rank: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A fault, and what must follow.

    Args:
        title: for the table.
        inject: brings it about in a training that is at a step.
        exit_codes: what ``hpctrain run`` may end with; empty where the launcher itself is killed.
        notice_s: the goal for the time until it is noticed; None where there is none.
        on_nodes: whether it needs a lab.
        names_rank: whether the failure must be of the rank that was disturbed.
        after: what happens between the end of the first attempt and the next one.
        repair: puts the nodes in order.
        is_slow: whether one takes over 20 s.
        own_disk: whether the run's folder is a small disk.
        first_step: when it is disturbed at the earliest.
    """

    title: str
    inject: Callable[[Training, Nodes | None, random.Random], Injection]
    exit_codes: tuple[int, ...] = (1,)
    notice_s: float | None = None
    on_nodes: bool = False
    names_rank: bool = True
    is_slow: bool = False
    after: Callable[[Training, random.Random], str] | None = None
    repair: Callable[[Nodes, str], None] | None = None
    settings: tuple[tuple[str, object], ...] = ()
    own_disk: bool = False
    first_step: int = 1


def now_s() -> float:
    return time.time()


def some_rank(training: Training, dice: random.Random) -> int:
    return dice.randrange(training.place.np)


def node_of(rank: int) -> str:
    return f"n{rank + 1}"


# -- ranks ---------------------------------------------------------------------------------------


def signal_rank(number: int) -> Callable[[Training, Nodes | None, random.Random], Injection]:
    def inject(training: Training, nodes: Nodes | None, dice: random.Random) -> Injection:
        rank = some_rank(training, dice)
        pid = training.program(rank)
        at_s = now_s()
        os.kill(pid, number)
        return Injection(at_s, rank)

    return inject


def order_rank(word: str) -> Callable[[Training, Nodes | None, random.Random], Injection]:
    def inject(training: Training, nodes: Nodes | None, dice: random.Random) -> Injection:
        rank = some_rank(training, dice)
        at_s = now_s()
        training.place.order(word, rank)
        return Injection(at_s, rank)

    return inject


# -- hosts ---------------------------------------------------------------------------------------


def fault_node(word: str) -> Callable[[Training, Nodes | None, random.Random], Injection]:
    def inject(training: Training, nodes: Nodes | None, dice: random.Random) -> Injection:
        assert nodes is not None
        rank = some_rank(training, dice)
        at_s = now_s()
        nodes.fault(node_of(rank), word)
        return Injection(at_s, rank)

    return inject


def kill_sshd(training: Training, nodes: Nodes | None, dice: random.Random) -> Injection:
    assert nodes is not None
    rank = some_rank(training, dice)
    at_s = now_s()
    nodes.kill_sshd(node_of(rank))
    return Injection(at_s, rank)


# -- launcher ------------------------------------------------------------------------------------


def kill_launcher(training: Training, nodes: Nodes | None, dice: random.Random) -> Injection:
    at_s = now_s()
    training.process.kill()
    return Injection(at_s)


def terminate_during_a_save(
    training: Training, nodes: Nodes | None, dice: random.Random
) -> Injection:
    """Wait until a checkpoint is being written."""
    training.wait_until(lambda: list(training.checkpoints.glob(".step-*.tmp")), "a save")
    at_s = now_s()
    training.process.send_signal(signal.SIGTERM)
    return Injection(at_s)


# -- checkpoints ---------------------------------------------------------------------------------


@contextmanager
def disk_of_its_own(folder: Path) -> Iterator[None]:
    """Have a small disk for the whole folder of a run that is to begin."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(training: Training, nodes: Nodes | None, dice: random.Random) -> Injection:
    """Fill the disk until a checkpoint could not be written, nor an event; then make room."""
    filler = training.path / "filler"
    at_s = now_s()
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(b"\0" * (64 << 10)):
                pass
        except OSError:
            pass
    try:
        for words in ("could not be written", "events and logs wait in memory"):
            training.wait_until(lambda words=words: words in training.said(), f"'{words}'")
        seen_s = now_s() - at_s
    finally:
        filler.unlink()
    return Injection(at_s, note=f"warned after {seen_s:.2f} s")


def damage_newest(how: str) -> Callable[[Training, random.Random], str]:
    """Return a function that truncates a file of the newest checkpoint, or flips a bit in it."""

    def damage(training: Training, dice: random.Random) -> str:
        newest = max(training.checkpoints.glob("step-*"))
        file = dice.choice(sorted(path for path in newest.iterdir() if path.stat().st_size))
        content = bytearray(file.read_bytes())
        place = dice.randrange(len(content))
        if how == "truncate":
            file.write_bytes(content[:place])
        else:
            content[place] ^= 1 << dice.randrange(8)
            file.write_bytes(content)
        return f"{newest.name}/{file.name} at byte {place} of {len(content)}"

    return damage


CASES: dict[str, Case] = {
    "kill": Case("SIGKILL of a rank", signal_rank(signal.SIGKILL), (137,), DEAD_RANK_S),
    "restart": Case(
        "SIGKILL of a rank, --max-restarts 1", signal_rank(signal.SIGKILL), (0,), DEAD_RANK_S,
        names_rank=False, settings=(("launch.max_restarts", 1),),
    ),
    "stop": Case(
        "SIGSTOP of a rank", signal_rank(signal.SIGSTOP), (137,), BLACK_HOLE_S, is_slow=True,
    ),
    "sleep": Case(
        "a rank that sleeps in Python", order_rank("sleep"), (137,), is_slow=True,
        settings=(("launch.hang_timeout_s", 10),),
    ),
    "poweroff": Case(
        "node powered off", fault_node("poweroff"), (137,), BLACK_HOLE_S, on_nodes=True,
        is_slow=True, repair=Nodes.repair,
    ),
    "link-down": Case(
        "link down", fault_node("link-down"), (137,), BLACK_HOLE_S, on_nodes=True,
        is_slow=True, repair=Nodes.repair,
    ),
    "drop": Case(
        "silent packet drop", fault_node("drop"), (137,), BLACK_HOLE_S, on_nodes=True,
        is_slow=True, repair=Nodes.repair,
    ),
    "isolate": Case(
        "nodes that do not hear each other", fault_node("isolate"), (), on_nodes=True,
        is_slow=True, names_rank=False, repair=Nodes.repair,
        settings=(("launch.hang_timeout_s", 20),),
    ),
    "sshd": Case(
        "all sshd of a node killed", kill_sshd, (), on_nodes=True, names_rank=False,
        repair=Nodes.restart,
    ),
    "disk-full": Case(
        "disk full while saving", fill_disk, (0,), names_rank=False, own_disk=True,
    ),
    "truncated": Case(
        "newest checkpoint truncated", signal_rank(signal.SIGKILL), (137,),
        after=damage_newest("truncate"), first_step=SECOND_CHECKPOINT,
    ),
    "bit-flip": Case(
        "newest checkpoint with a bit flipped", signal_rank(signal.SIGKILL), (137,),
        after=damage_newest("flip"), first_step=SECOND_CHECKPOINT,
    ),
    "sigterm": Case(
        "SIGTERM during a save", terminate_during_a_save, (75,), names_rank=False,
    ),
    "launcher": Case(
        "launcher SIGKILLed, started again", kill_launcher, (-9,), names_rank=False,
    ),
    "nan": Case("NaN loss on one rank", order_rank("nan"), (1,), DEAD_RANK_S),
    "leave": Case("a rank exits 0 early (sys.exit)", order_rank("leave"), (1,), DEAD_RANK_S),
    "vanish": Case("a rank exits 0 early (os._exit)", order_rank("vanish"), (1,), DEAD_RANK_S),
}  # fmt: skip
