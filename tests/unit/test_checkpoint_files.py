"""Checkpoints on disk: whatever wrote them and whatever befell them, whole or absent."""

import contextlib
import json
import os
from pathlib import Path

import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402

from hpctrain.config import Config, parse_config  # noqa: E402
from hpctrain.errors import CheckpointError  # noqa: E402
from hpctrain.train import checkpoint_folder as folders  # noqa: E402
from hpctrain.train.checkpoint_writer import CheckpointWriter, open_root  # noqa: E402
from hpctrain.train.communicator import Communicator  # noqa: E402
from hpctrain.train.exchange import BucketExchange  # noqa: E402
from hpctrain.train.model import build_model, sum_token_losses  # noqa: E402
from hpctrain.train.optimizer import make_optimizer  # noqa: E402
from hpctrain.train.presets import ModelSize  # noqa: E402
from hpctrain.train.snapshot import Snapshot, part_path  # noqa: E402
from hpctrain.train.state import (  # noqa: E402
    model_pieces,
    optimizer_pieces,
    optimizer_step,
    read_pieces,
    take_share,
)

CPU = torch.device("cpu")
SIZE = ModelSize(
    d_model=16, num_layers=2, num_heads=2, vocab_size=32, seq_len=8, position="learned"
)
FACTS = {"schema": folders.SCHEMA, "tokens": 1, "size": 1}


def make(bucket_mb, seed=1, steps=2):
    """Return a model, its optimizer and exchange, after some steps."""
    model = build_model(SIZE, seed=seed)
    exchange = BucketExchange(model, Communicator(), bucket_mb)
    optimizer = make_optimizer(exchange.pieces, Config().optim)
    for number in range(steps):
        rows = torch.randint(32, (4, 9), generator=torch.Generator().manual_seed(number))
        exchange.clear()
        sum_token_losses(model(rows[:, :-1]), rows[:, 1:]).backward()
        optimizer.step()
    return model, optimizer, exchange


def pieces_of(model, optimizer):
    return [*model_pieces(model), *optimizer_pieces(model, optimizer)]


def write(root, step, shares):
    """Write a checkpoint as ranks with these shares would."""
    temporary = folders.temporary_path(root, step)
    for rank, share in enumerate(shares):
        snapshot = Snapshot(share, CPU)
        snapshot.take()
        snapshot.write(temporary, rank, rng={})
    parts = [part_path(temporary, rank) for rank in range(len(shares))]
    described = [json.loads(part.read_text()) for part in parts]
    files = {s["file"]: {"bytes": s["bytes"], "sha256": s["sha256"]} for s in described}
    tensors = folders.index_tensors(described)
    return folders.commit(root, step, {**FACTS, "step": step, "files": files, "tensors": tensors})


def test_attempts_do_not_write_into_each_others_folders(tmp_path, monkeypatch):
    """A rank of the first may be cut off and not know it yet."""
    paths = []
    for number in ("1", "2"):
        monkeypatch.setenv("HPCTRAIN_ATTEMPT_NUMBER", number)
        paths.append(folders.temporary_path(tmp_path, 20))
        paths[-1].mkdir()
    monkeypatch.delenv("HPCTRAIN_ATTEMPT_NUMBER")
    assert len({*paths, folders.temporary_path(tmp_path, 21)}) == 3
    assert folders.list_steps(tmp_path) == []
    folders.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- what is in them -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_what_is_read_back_depends_neither_on_ranks_nor_on_buckets(tmp_path, size):
    model, optimizer, _ = make(bucket_mb=0.005)
    pieces = pieces_of(model, optimizer)
    shares = [take_share(pieces, rank, size) for rank in range(size)]
    weights = [sum(piece.values.nbytes for piece in share) for share in shares]
    assert max(weights) - min(weights) <= 8
    folder = write(tmp_path, 2, shares)

    other, other_optimizer, _ = make(bucket_mb=25.0, seed=9, steps=0)
    found = pieces_of(other, other_optimizer)
    read_pieces(folder, folders.read_index(folder), found)
    for mine, wanted in zip(found, pieces, strict=True):
        assert (mine.name, mine.shape) == (wanted.name, wanted.shape)
        assert torch.equal(mine.values, wanted.values)
    for mine, wanted in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, wanted)


def test_every_parameter_has_its_moments_once():
    model, optimizer, exchange = make(bucket_mb=0.005)
    assert len(exchange.buckets) > 1
    names = [piece.name for piece in optimizer_pieces(model, optimizer)]
    assert sorted(names) == sorted(
        f"optimizer/{moment}/{name}"
        for moment in ("exp_avg", "exp_avg_sq")
        for name, _ in model.named_parameters()
    )
    assert optimizer_step(optimizer) == 2


def test_a_sharded_optimizer_is_read_back_unsharded(tmp_path):
    model, optimizer, _ = make(bucket_mb=25.0)
    flats = [flat for group in optimizer.param_groups for flat in group["params"]]
    shares, cut = [], [flat.numel() * 2 // 5 for flat in flats]
    for part in (slice(0, 1), slice(1, 2)):
        views = [
            torch.nn.Parameter(flat.detach().split([at, flat.numel() - at])[part.start])
            for flat, at in zip(flats, cut, strict=True)
        ]
        shard = torch.optim.AdamW(views)
        for view in views:
            view.grad = torch.ones_like(view)
        mine = optimizer_pieces(model, shard)
        for piece in mine:
            piece.values.fill_(1 + part.start)
        shares.append(mine)
    assert any(not piece.is_whole for piece in shares[0])
    folder = write(tmp_path, 1, shares)
    wanted = optimizer_pieces(model, optimizer)
    read_pieces(folder, folders.read_index(folder), wanted)
    values = torch.cat([piece.values for piece in wanted])
    assert set(values.tolist()) == {1.0, 2.0}
    assert (values == 1).sum() == sum(p.values.numel() for p in shares[0])


def test_the_safetensors_library_reads_the_files(tmp_path):
    model, optimizer, _ = make(bucket_mb=25.0)
    folder = write(tmp_path, 3, [pieces_of(model, optimizer)])
    with safe_open(folder / "rank-00000.safetensors", framework="pt") as file:
        assert file.metadata() == {"rng": "{}"}
        for name, parameter in model.named_parameters():
            assert torch.equal(file.get_tensor(f"model/{name}"), parameter)


def test_another_models_checkpoint_is_named_as_such(tmp_path):
    model, optimizer, _ = make(bucket_mb=25.0)
    folder = write(tmp_path, 3, [pieces_of(model, optimizer)])
    wider = build_model(ModelSize(**{**_fields(SIZE), "d_model": 32}), seed=1)
    with pytest.raises(CheckpointError, match=r"embedding.weight has another shape, got \[32, 16"):
        read_pieces(folder, folders.read_index(folder), model_pieces(wider))
    deeper = build_model(ModelSize(**{**_fields(SIZE), "num_layers": 3}), seed=1)
    with pytest.raises(CheckpointError, match=r"has no model/blocks\.2\..*And \d+ more"):
        read_pieces(folder, folders.read_index(folder), model_pieces(deeper))


def _fields(size):
    return {name: getattr(size, name) for name in size.__dataclass_fields__}


def test_shares_that_leave_a_gap_are_no_checkpoint(tmp_path):
    model, optimizer, _ = make(bucket_mb=25.0)
    pieces = pieces_of(model, optimizer)
    with pytest.raises(CheckpointError, match="do not make up the tensor"):
        write(tmp_path, 1, [take_share(pieces, 0, 3), take_share(pieces, 2, 3)])
    assert folders.list_steps(tmp_path) == []


# -- damage --------------------------------------------------------------------------------------


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("name", ["index.json", "rank-00000.safetensors", "rank-00001.safetensors"])
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
def test_damage_is_found_and_the_file_named(tmp_path, name, damage):
    model, optimizer, _ = make(bucket_mb=25.0)
    pieces = pieces_of(model, optimizer)
    folder = write(tmp_path, 1, [take_share(pieces, rank, 2) for rank in range(2)])
    assert folders.find_damage(folder, folders.read_index(folder)) == []
    damage(folder / name)
    try:
        problems = folders.find_damage(folder, folders.read_index(folder))
    except CheckpointError as error:
        problems = list(error.messages)
    if damage is truncate and name == "index.json":
        assert problems == []  # the newline at its end
    else:
        assert len(problems) == 1
        assert str(folder / name) in problems[0]


# -- a crash anywhere ----------------------------------------------------------------------------


class Crash(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


@pytest.fixture
def crash_after(monkeypatch):
    """Return a function: the n-th thing done to the disk from now on is the last one."""
    left = [0]

    def guarded(real):
        def call(*arguments, **more):
            left[0] -= 1
            if left[0] < 0:
                if real is real_fsync and os.fstat(arguments[0]).st_size > 1:
                    # What was not flushed is partly lost; a folder cannot be cut.
                    with contextlib.suppress(OSError):
                        os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                raise Crash
            return real(*arguments, **more)

        return call

    real_fsync = os.fsync
    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))

    def arm(count):
        left[0] = count

    arm(1 << 30)
    return arm


def test_a_crash_at_any_point_leaves_it_complete_or_absent(tmp_path, crash_after):
    model, optimizer, _ = make(bucket_mb=25.0)
    pieces = pieces_of(model, optimizer)
    config = parse_config("", overrides=["checkpoint.keep_last=1"]).checkpoint
    outcomes = []
    for count in range(200):
        root = tmp_path / str(count)
        open_root(root)
        write(root, 1, [pieces])
        writer = CheckpointWriter(root, config, 0, [0], Snapshot(pieces, CPU), None)
        crash_after(count)
        save = writer.start(2, {**FACTS, "step": 2}, {}, 0.0)
        killed = save.written.exception() is not None
        if not killed:
            writer.settle(save, failed=False)
        writer.close()
        crash_after(1 << 30)

        for step in folders.list_steps(root):  # before anything is repaired
            folder = root / folders.step_name(step)
            assert folders.find_damage(folder, folders.read_index(folder)) == []
        open_root(root)
        folders.write_latest(root)
        steps = folders.list_steps(root)
        assert steps in ([1], [1, 2], [2])
        assert (root / "latest").read_text() == folders.step_name(steps[-1]) + "\n"
        assert not list(root.glob(".step*"))
        outcomes.append(steps)
        if steps == [2] and writer.newest and not killed and outcomes[-2:] == [[2], [2]]:
            break
    else:
        pytest.fail("the save never came to its end")
    assert [1] in outcomes
    assert [1, 2] in outcomes
    assert outcomes == sorted(outcomes, key=[[1], [1, 2], [2]].index)  # never back


def test_a_disk_that_fails_is_a_warning_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    model, optimizer, _ = make(bucket_mb=25.0)
    config = Config().checkpoint
    open_root(tmp_path)
    writer = CheckpointWriter(
        tmp_path, config, 0, [0], Snapshot(pieces_of(model, optimizer), CPU), None
    )
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full)
        save = writer.start(1, {**FACTS, "step": 1}, {}, 0.0)
        assert isinstance(save.written.exception(), OSError)
        assert save.share_state() == (False, True)
    writer.settle(save, failed=True)
    assert "step 1 could not be written: [Errno 28] No space" in str(writer.problem)
    save = writer.start(2, {**FACTS, "step": 2}, {}, 0.0)
    save.written.result()
    writer.settle(save, failed=False)
    writer.close()
    assert writer.problem is None
    assert folders.list_steps(tmp_path) == [2]
    assert not list(tmp_path.glob(".step*"))
    assert capsys.readouterr().err.count("warning: ") == 1


def _full(descriptor):
    raise OSError(28, "No space left on device")


# -- which ones are kept -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep_last", "keep_every_steps", "kept"),
    [(1, 0, [50]), (2, 0, [40, 50]), (9, 0, [10, 20, 30, 40, 50]), (1, 20, [20, 40, 50])],
)
def test_retention(tmp_path, keep_last, keep_every_steps, kept):
    for step in (10, 20, 30, 40, 50):
        (tmp_path / folders.step_name(step)).mkdir()
    folders.remove_expired(tmp_path, keep_last, keep_every_steps)
    assert folders.list_steps(tmp_path) == kept


def test_what_is_set_aside_is_kept_apart(tmp_path):
    for _ in range(2):
        (tmp_path / folders.step_name(7)).mkdir()
        folders.set_aside(tmp_path, [7])
    assert folders.list_steps(tmp_path) == []
    names = sorted(path.name for path in (tmp_path / "set-aside").iterdir())
    assert names == ["step-00000007", "step-00000007.1"]


def test_a_checkpoint_is_found_by_its_folder_or_its_runs(tmp_path):
    root = tmp_path / "checkpoints"
    model, optimizer, _ = make(bucket_mb=25.0)
    folders_made = [write(root, step, [pieces_of(model, optimizer)]) for step in (1, 20)]
    assert folders.find_checkpoint(tmp_path) == folders_made[1]
    assert folders.find_checkpoint(root) == folders_made[1]
    assert folders.find_checkpoint(folders_made[0]) == folders_made[0]
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        folders.find_checkpoint(tmp_path / "absent")
