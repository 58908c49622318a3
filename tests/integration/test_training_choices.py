"""Whatever exchanges, shards or recomputes: the losses are those of one plain rank.

A launch of its own for each combination would take minutes, so each backend and number of
ranks is started once and trains with one set of settings after the other.
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import launching
import pytest
import tiers
from small_training import SETTINGS, as_options

from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi

tiers.require("torch", "horovod", "mpirun")

TIMEOUT_S = 120
ROOT = Path(__file__).resolve().parents[2]
RANKS = """
import json, os, sys
sys.path.append(os.environ.get("EXAMPLES", "."))
rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
sink = os.open(f"{sys.argv[1]}/{rank}.jsonl", os.O_WRONLY | os.O_CREAT)
os.environ["HPCTRAIN_EVENTS_FD"] = str(sink)
from hpctrain.config import parse_config
from hpctrain.train.communicator import open_communicator
from hpctrain.train.loop import run_training
runs = [parse_config("", overrides=overrides) for overrides in json.loads(sys.argv[2])]
comm = open_communicator(runs[0].comm.backend, "cpu")
for config in runs:
    run_training(config, comm)
comm.shutdown()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from hpctrain.train.prepare import PrepareRequest, prepare_data

    out = tmp_path_factory.mktemp("data") / "text"
    source = str(Path(os.__file__).parent / "email")
    prepare_data(PrepareRequest(sources=(source,), out=out, validation_fraction=0.1))
    return out


@pytest.fixture(scope="module")
def train_each(data, tmp_path_factory):
    """Return a function that trains np ranks with each of several sets of settings, and returns
    for each set what rank 0 reported of its steps."""
    mpi = find_mpi(os.environ, LocalExecutor())
    if mpi.flavour not in ("openmpi4", "openmpi5"):
        pytest.skip(f"mpirun: Horovod needs an Open MPI, found {mpi.flavour}")
    more = ["--oversubscribe"] if mpi.flavour == "openmpi4" else ["--map-by", "slot:oversubscribe"]

    def start(np, *runs, program=RANKS, check=True, **env):
        folder = tmp_path_factory.mktemp("events")
        settings = [
            {**SETTINGS, **run} if "data.factory" in run else {**SETTINGS, "data.path": data, **run}
            for run in runs
        ]
        overrides = [[f"{k}={v}" for k, v in run.items()] for run in settings]
        launcher = [mpi.mpirun, "-np", str(np), "--mca", "mpi_yield_when_idle", "1",
                    "--bind-to", "none", *more]  # fmt: skip
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HPCTRAIN_", "HOROVOD_"))}
        done = subprocess.run(
            [*launcher, sys.executable, "-c", program, str(folder), json.dumps(overrides)],
            env={
                **kept,
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(ROOT), *kept.get("PYTHONPATH", "").split()]),
                **env,
            },
            capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        events = [json.loads(line) for line in (folder / "0.jsonl").read_text().splitlines()]
        start.started = [event for event in events if event["event"] == "train_started"]
        results = []
        for event in events:
            if event["event"] == "train_started":
                results.append([])
            elif event["event"] == "step":
                results[-1].append(event)
        return results if check else (done, results)

    return start


def losses(steps):
    return [step["loss"] for step in steps]


def norms(steps):
    return [step["grad_norm"] for step in steps]


@pytest.fixture(scope="module")
def reference(train_each):
    """What one rank without a backend reports."""
    (steps,) = train_each(1, {"comm.backend": "none"})
    assert len(steps) == 20
    assert losses(steps)[-1] < losses(steps)[0] - 0.5
    return steps


BUCKETS, NATIVE = {"comm.exchange": "buckets"}, {"comm.exchange": "native"}
ACCUMULATED = {"train.grad_accum_steps": 3}
RECOMPUTED = {"train.activation_checkpointing": "true"}
COMBINATIONS = {
    "buckets": BUCKETS,
    "native": NATIVE,
    "native accumulated": {**NATIVE, **ACCUMULATED},
    "buckets accumulated": {**BUCKETS, **ACCUMULATED},
    "buckets recomputed": {**BUCKETS, **RECOMPUTED},
    "native recomputed": {**NATIVE, **RECOMPUTED},
    "sharded": {"optim.sharded": "true"},
    "sharded accumulated recomputed": {"optim.sharded": "true", **ACCUMULATED, **RECOMPUTED},
}


@pytest.mark.parametrize("np", [1, 2, 3, 4])
@pytest.mark.parametrize("backend", ["horovod", "ddp"])
def test_losses_are_those_of_one_plain_rank(train_each, reference, backend, np):
    runs = [{**run, "comm.backend": backend} for run in COMBINATIONS.values()]
    results = train_each(np, *runs)
    for run, started in zip(runs, train_each.started, strict=True):
        assert started["exchange"] == run.get("comm.exchange", "buckets")
        assert started["sharded"] == (np > 1 and "optim.sharded" in run)
    for name, steps in zip(COMBINATIONS, results, strict=True):
        assert losses(steps) == pytest.approx(losses(reference), rel=1e-4), name
        assert norms(steps) == pytest.approx(norms(reference), rel=1e-3), name


REDUCED = {
    "bf16": {"train.precision": "bf16"},
    "fp16": {"train.precision": "fp16"},
    "fp16 native": {"train.precision": "fp16", **NATIVE},
    "fp16 on the wire": {"comm.compression": "fp16", **BUCKETS},
    "fp16 on the wire, native": {"comm.compression": "fp16", **NATIVE},
    "bf16 on the wire": {"comm.compression": "bf16", **BUCKETS},
    "bf16 on the wire, native": {"comm.compression": "bf16", **NATIVE},
}


@pytest.mark.parametrize("backend", ["horovod", "ddp"])
def test_fewer_digits_give_nearly_the_same_losses(train_each, reference, backend):
    runs = {
        name: {**run, "comm.backend": backend}
        for name, run in REDUCED.items()
        if backend == "ddp" or run.get("comm.compression") != "bf16"
    }
    for (name, run), steps in zip(runs.items(), train_each(2, *runs.values()), strict=True):
        assert losses(steps) == pytest.approx(losses(reference), rel=2e-2), name
        assert losses(steps) != pytest.approx(losses(reference), rel=1e-7), name
        scales = [step["loss_scale"] for step in steps]
        assert scales == [65536.0 if run.get("train.precision") == "fp16" else None] * 20
        assert steps[-1]["skipped_steps"] == 0


# On rank 1 alone, the fourth gradient of the position encoding is out of range.
BROKEN_GRADIENT = RANKS.replace(
    "runs =",
    """import hpctrain.train.setup as setup, torch, zlib
build = setup.build_model
def build_one_that_breaks(*arguments):
    global model
    model, seen = build(*arguments), []
    def spoil(gradient):
        seen.append(1)
        return gradient * float("inf") if len(seen) == 4 else gradient
    if rank == "1":
        model.position.weight.register_hook(spoil)
    return model
setup.build_model = build_one_that_breaks
runs =""",
).replace(
    "    run_training(config, comm)",
    """    run_training(config, comm)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    sums = torch.zeros(comm.size, dtype=torch.float64)
    sums[comm.rank] = zlib.crc32(flat.numpy().tobytes())
    sums = comm.all_reduce_sum(sums, "checksums")
    assert len(set(sums.tolist())) == 1, f"parameters differ: {sums}"
    assert flat.isfinite().all()""",
)


@pytest.mark.parametrize("backend", ["horovod", "ddp"])
def test_an_update_is_left_out_on_all_ranks_alike(train_each, reference, backend):
    skip = {"comm.backend": backend, "train.on_nan": "skip"}
    scaled = {"comm.backend": backend, "train.precision": "fp16"}
    runs = [{**run, **exchange} for run in (skip, scaled) for exchange in (BUCKETS, NATIVE)]
    results = train_each(2, *runs, program=BROKEN_GRADIENT)
    for run, steps in zip(runs, results, strict=True):
        assert [step["skipped_steps"] for step in steps] == [0] * 3 + [1] * 17
        assert all(math.isfinite(loss) for loss in losses(steps))
        assert losses(steps)[-1] < losses(steps)[0] - 0.5
        if "train.precision" in run:
            assert [step["loss_scale"] for step in steps] == [65536.0] * 3 + [32768.0] * 17


@pytest.mark.parametrize("backend", ["horovod", "ddp"])
def test_a_gradient_that_is_not_a_number_stops_all_before_it_is_saved(
    train_each, tmp_path, backend
):
    program = BROKEN_GRADIENT.partition("    flat = ")[0] + "\ncomm.shutdown()\n"
    stop = {"comm.backend": backend, "checkpoint.every_steps": 1, **BUCKETS}
    done, (steps,) = train_each(
        2, stop, program=program, check=False, HPCTRAIN_RUN_PATH=str(tmp_path)
    )
    assert done.returncode != 0
    assert [step["step"] for step in steps] == [1, 2, 3]
    said = "step 4: the gradient is not finite, .*The last checkpoint is .*-00000003"
    assert re.search(said, done.stderr), done.stderr
    saved = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert saved[-1] == "step-00000003"


# Every rank counts the elements of its optimizer's state; joined by name, the state of all
# ranks is compared between the first run and the others.
STATES = RANKS.replace(
    "runs =",
    """import hpctrain.train.loop as loop, torch
from hpctrain.train.state import MOMENTS, optimizer_pieces, optimizer_step
make, joined = loop.make_optimizer, []
def make_and_keep(pieces, config):
    global optimizer
    optimizer = make(pieces, config)
    return optimizer
loop.make_optimizer = make_and_keep
def join_states(comm):
    pieces = optimizer_pieces(model, optimizer)
    own = sum(piece.values.numel() for piece in pieces) // len(MOMENTS)
    whole = torch.zeros(80000, dtype=torch.float64)
    names = sorted(PARAMETERS)
    for piece in pieces:
        _, moment, name = piece.name.split("/")
        start = sum(PARAMETERS[n] for n in names[:names.index(name)]) + piece.begin
        at = MOMENTS.index(moment) * 40000 + start
        whole[at : at + piece.values.numel()] = piece.values.double()
    assert optimizer_step(optimizer) == 20
    comm.all_reduce_sum(whole, "whole")
    return own, whole
import hpctrain.train.setup as setup
build = setup.build_model
def build_and_name(*arguments):
    global model, PARAMETERS
    model = build(*arguments)
    PARAMETERS = {name: p.numel() for name, p in model.named_parameters()}
    return model
setup.build_model = build_and_name
runs =""",
).replace(
    "    run_training(config, comm)",
    """    run_training(config, comm)
    own, whole = join_states(comm)
    total, share = sum(PARAMETERS.values()), comm.size if config.optim.sharded else 1
    assert total < 40000
    # Buckets are padded to a multiple of 16 elements a rank.
    assert abs(own - total / share) < 0.05 * total, (own, total)
    # Unsharded, every rank has the whole of it.
    joined.append(whole / (1 if config.optim.sharded else comm.size))
    torch.testing.assert_close(joined[-1], joined[0], rtol=1e-3, atol=1e-7)""",
)


@pytest.mark.parametrize("backend", ["horovod", "ddp"])
def test_shards_of_the_optimizer_are_equal_parts_of_the_same_state(train_each, backend):
    plain = {"comm.backend": backend, **BUCKETS}
    sharded = {"comm.backend": backend, "optim.sharded": "true"}
    one, other = train_each(3, plain, sharded, program=STATES)
    assert losses(other) == pytest.approx(losses(one), rel=1e-6)
    assert norms(other) == pytest.approx(norms(one), rel=1e-4)


@pytest.mark.parametrize("exchange", ["buckets", "native"])
def test_a_rank_of_torch_distributed_that_breaks_off_ends_the_others(train_each, exchange):
    program = RANKS.replace(
        "comm = open",
        """if rank == "1":
    from hpctrain.train.data import TrainingBatches
    read = TrainingBatches.read
    def break_off(self, step, grad_accum_steps):
        if step == 3:
            os._exit(7)
        return read(self, step, grad_accum_steps)
    TrainingBatches.read = break_off
comm = open""",
    ).replace(
        "    run_training(config, comm)",
        """    try:
        run_training(config, comm)
    except hpctrain.errors.OtherRankError as error:
        sys.exit(f"explained: {error}")""",
    )
    program = "import hpctrain.errors\n" + program
    run = {"comm.backend": "ddp", "comm.exchange": exchange}
    # Not by the exit code: whether mpirun or the broken connection ends rank 0 is a race.
    done, runs = train_each(2, run, program=program, check=False)
    assert done.returncode != 0
    (steps,) = runs
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert "Traceback" not in done.stderr


def test_a_scaled_rate_is_that_of_a_larger_one(train_each, reference):
    tokens = {"optim.warmup_tokens": 5 * 7 * 32, "train.tokens": 20 * 7 * 32 - 1}
    scaled = {"optim.lr": 5e-3, "optim.lr_scaling": "linear", "optim.warmup_steps": 0, **tokens}
    (steps,) = train_each(2, {"comm.backend": "horovod", **scaled, "train.steps": 3})
    rates = [step["lr"] for step in reference]
    assert [step["lr"] for step in steps] == pytest.approx(rates)
    assert losses(steps) == pytest.approx(losses(reference), rel=1e-4)


COMPILED = RANKS.replace(
    "runs =",
    """import hpctrain.train.setup as setup
build = setup.build_model
def build_and_keep(*arguments):
    global model
    model = build(*arguments)
    return model
setup.build_model = build_and_keep
runs =""",
).replace(
    "comm.shutdown()",
    """assert all(block._compiled_call_impl is not None for block in model.blocks)
comm.shutdown()""",
)


@pytest.mark.needs("g++")
def test_compiled_blocks_give_the_same_losses(train_each, reference, tmp_path):
    # The warm-up alone: the compiler takes long, and longer with an empty cache.
    run = {"comm.backend": "horovod", "train.compile": "true", "train.steps": 5, **BUCKETS}
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    (steps,) = train_each(2, run, program=COMPILED, **cache)
    assert losses(steps) == pytest.approx(losses(reference)[:5], rel=1e-4)


def test_the_example_of_a_model_of_one_s_own(train_each):
    own = {"model.factory": "own_model:build", "comm.backend": "horovod", **BUCKETS}
    runs = [{**own, "model.d_model": 8}, {**own, "train.precision": "bf16"}]
    one, two = (train_each(np, *runs, EXAMPLES=str(ROOT / "examples")) for np in (1, 2))
    assert losses(two[0]) == pytest.approx(losses(one[0]), rel=1e-4)
    for steps in two:
        assert losses(steps)[-1] < losses(steps)[0] - 0.5


def test_the_example_of_data_of_one_s_own(train_each):
    own = {"data.factory": "own_data:build", "model.seq_len": 64, **BUCKETS}
    runs = [{**own, "comm.backend": backend} for backend in ("horovod", "ddp")]
    one, three = (train_each(np, *runs, EXAMPLES=str(ROOT / "examples")) for np in (1, 3))
    assert losses(one[0])[-1] < losses(one[0])[0] - 0.5
    for steps in (*one, *three):
        assert losses(steps) == pytest.approx(losses(one[0]), rel=1e-4)


def test_ranks_with_other_data_of_one_s_own_are_named(train_each):
    program = RANKS.replace(
        "runs =",
        """import own_data
write = own_data.Sums._write
own_data.Sums._write = lambda self, sample: write(self, sample + int(rank))
runs =""",
    )
    own = {"data.factory": "own_data:build", "comm.backend": "horovod"}
    done, _ = train_each(2, own, program=program, check=False, EXAMPLES=str(ROOT / "examples"))
    assert done.returncode != 0
    assert "rank 1: own_data:build holds other tokens than on rank 0" in done.stderr


def test_the_launcher_tells_torch_distributed_where_to_meet(data, tmp_path):
    settings = {**SETTINGS, "data.path": data, "comm.backend": "ddp", "train.steps": 3}
    done = launching.run(tmp_path, "--np", "2", *as_options(settings))
    assert done.returncode == 0, done.stderr
    assert done.event("train_started")["backend"] == "ddp"
    assert done.event("train_started")["size"] == 2
    # A program that knows torch.distributed alone, and nothing of hpctrain.
    script = tmp_path / "program.py"
    script.write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "total = torch.tensor([dist.get_rank() + 1.0])\n"
        "dist.all_reduce(total)\n"
        "print('total', total.item(), flush=True)\n"
        "dist.destroy_process_group()\n"
    )
    done = launching.run(tmp_path, "--np", "2", "--", sys.executable, "program.py", name="s")
    assert done.returncode == 0, done.stderr
    assert b"total 3.0" in done.log(0)
    assert b"total 3.0" in done.log(1)
