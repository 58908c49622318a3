"""The trainer for real: ranks under mpirun, exchanging through Horovod.

Losses must not depend on the number of ranks, nor on how the gradients are cut into buckets.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_training
import tiers

from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi

tiers.require("torch", "horovod", "mpirun")

TIMEOUT_S = 120
ROOT = Path(__file__).resolve().parents[2]
RANK = """
import os, sys
folder = os.environ["EVENTS_FOLDER"]
path = os.path.join(folder, os.environ.get("OMPI_COMM_WORLD_RANK", "0") + ".jsonl")
descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.set_inheritable(descriptor, True)
os.environ["HPCTRAIN_EVENTS_FD"] = str(descriptor)
os.execv(sys.executable, [sys.executable, "-m", "hpctrain.train", *sys.argv[1:]])
"""
BASE = {**small_training.SETTINGS, "train.eval_every_steps": 10}


class Run:
    """A finished run: exit code, output, and each rank's events."""

    def __init__(self, done, folder):
        self.returncode, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        self.ranks = [
            [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(folder.glob("*.jsonl"))
        ]

    def values(self, event, field, rank=0):
        return [e[field] for e in self.ranks[rank] if e["event"] == event]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from hpctrain.train.prepare import PrepareRequest, prepare_data

    out = tmp_path_factory.mktemp("data") / "text"
    source = str(Path(os.__file__).parent / "email")
    prepare_data(PrepareRequest(sources=(source,), out=out, validation_fraction=0.1))
    return out


@pytest.fixture
def train(data, tmp_path):
    """Return a function that trains with the given settings and waits for the end."""
    mpi = find_mpi(os.environ, LocalExecutor())
    oversubscribe = ["--oversubscribe"]
    if mpi.flavour == "openmpi5":
        oversubscribe = ["--map-by", "slot:oversubscribe"]
    elif mpi.flavour != "openmpi4":
        pytest.skip(f"mpirun: Horovod needs an Open MPI, found {mpi.flavour}")
    count = 0

    def start(np, settings=(), *, launched_size=None, alone=False, rank=RANK, **env):
        nonlocal count
        count += 1
        folder = tmp_path / f"events-{count}"
        folder.mkdir()
        merged = {**BASE, "data.path": data, **dict(settings)}
        overrides = [f"--set={key}={value}" for key, value in merged.items() if value is not None]
        program = [sys.executable, "-c", rank, *overrides]
        launcher = [mpi.mpirun, "-np", str(np), "--mca", "mpi_yield_when_idle", "1",
                    "--bind-to", "none", *oversubscribe]  # fmt: skip
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HPCTRAIN_", "HOROVOD_"))}
        variables = {
            **kept,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMP_NUM_THREADS": "1",
            "HPCTRAIN_SIZE": str(launched_size or np),
            "EVENTS_FOLDER": str(folder),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            **env,
        }
        done = subprocess.run(
            [*([] if alone else launcher), *program], env=variables, capture_output=True, text=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip
        return Run(done, folder)

    return start


def test_losses_are_equal_at_one_to_four_ranks(train):
    runs = {np: train(np) for np in (1, 2, 3, 4)}
    for np, run in runs.items():
        assert run.returncode == 0, run.stderr
        assert run.values("train_started", "size") == [np]
        assert len(run.ranks) == np
    losses = {np: run.values("step", "loss") for np, run in runs.items()}
    assert len(losses[1]) == 20
    assert losses[1][-1] < losses[1][0] - 0.5
    for np in (2, 3, 4):
        assert losses[np] == pytest.approx(losses[1], rel=1e-4)
        assert runs[np].values("eval", "val_loss") == pytest.approx(
            runs[1].values("eval", "val_loss"), rel=1e-4
        )
        assert runs[np].values("step", "grad_norm") == pytest.approx(
            runs[1].values("step", "grad_norm"), rel=1e-3
        )


CYCLE = """
import os, sys
from hpctrain.train.__main__ import main
code = main(sys.argv[1:])
print("cycle", os.environ["HOROVOD_CYCLE_TIME"], flush=True)
sys.exit(code)
"""


def test_long_steps_get_long_cycles_of_horovod_and_the_users_own_stays(train):
    short = {"train.steps": 1}
    long = {"model.d_model": 128, "train.global_batch_size": 512, "train.steps": 1}
    assert "cycle 1.0" in train(2, short, rank=CYCLE).stdout
    assert train(2, long, rank=CYCLE).stdout.count("cycle 10.0") == 2
    own = {"HOROVOD_CYCLE_TIME": "3"}
    assert train(2, long, rank=CYCLE, **own).stdout.count("cycle 3\n") == 2


def test_losses_do_not_depend_on_buckets_accumulation_or_backend(train):
    reference = train(2)
    others = [
        train(2, {"comm.bucket_mb": 25.0}),
        train(2, {"train.grad_accum_steps": 3}),
        train(1, {"comm.backend": "none"}, alone=True),
    ]
    for run in others:
        assert run.returncode == 0, run.stderr
        assert run.values("step", "loss") == pytest.approx(
            reference.values("step", "loss"), rel=1e-4
        )


def test_the_header_says_what_comes_of_the_settings(train):
    run = train(
        2,
        {"train.steps": 7, "train.tokens": 450, "optim.lr_scaling": "linear",
         "optim.warmup_tokens": 1, "model.factory": "own_model:build", "model.d_model": 8},
        PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'examples'}",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.values("step", "step") == [1, 2, 3]
    for line in (
        r"lr +0.02: optim.lr = 0.01, scaled to 2 ranks \(optim.lr_scaling = linear\)",
        "steps +3 for train.tokens = 450",
        "warning +train.steps = 7 is ignored: train.tokens is given",
        "warning +optim.warmup_steps = 5 is ignored: optim.warmup_tokens is given",
        "warning +model.d_model is ignored: model.factory builds the model",
        r"model +[0-9,]+ parameters: own_model:build",
    ):
        assert len(re.findall(line, run.stdout)) == 1, (line, run.stdout)


def test_apex_that_is_not_there_is_told_once_with_what_is_built_in(train):
    run = train(2, {"train.precision": "apex-O1", "optim.implementation": "apex"})
    assert run.returncode == 2
    assert run.stderr.count("Set train.precision=bf16") == 1, run.stderr
    assert run.stderr.count("Set optim.implementation=torch") == 1


def test_ranks_draw_other_random_numbers_from_the_start(train):
    rank = RANK.replace(
        "os.execv",
        """import torch
from hpctrain.train.data import TrainingBatches
read_batches = TrainingBatches.read
def read(self, step, grad_accum_steps):
    print("drawn", torch.rand(()).item(), flush=True)
    return read_batches(self, step, grad_accum_steps)
TrainingBatches.read = read
from hpctrain.train.__main__ import main
sys.exit(main(sys.argv[1:]))
os.execv""",
    )
    drawn = [re.findall("drawn (.*)", train(2, {"train.steps": 1}, rank=rank).stdout)
             for _ in range(2)]  # fmt: skip
    assert len(set(drawn[0])) == 2
    assert sorted(drawn[0]) == sorted(drawn[1])


def test_a_repeated_run_gives_bitwise_equal_losses(train):
    runs = [train(2, {"train.steps": 8}) for _ in range(2)]
    assert runs[0].values("step", "loss") == runs[1].values("step", "loss")


def test_events_tell_every_rank_s_time(train):
    run = train(2, {"train.steps": 6, "train.log_every_steps": 4, "train.eval_every_steps": 0})
    (started,) = (e for e in run.ranks[0] if e["event"] == "train_started")
    assert started["tokens_per_step"] == 7 * 32
    assert (started["device"], started["backend"]) == ("cpu", "horovod")
    assert (started["precision"], started["steps"]) == ("fp32", 6)
    assert run.values("step", "step") == [4, 6]
    assert run.values("step", "tokens") == [4 * 7 * 32, 6 * 7 * 32]
    assert run.values("step", "mfu") == [None, None]
    assert run.values("eval", "step") == [6]
    (loss,), (perplexity,) = run.values("eval", "val_loss"), run.values("eval", "val_perplexity")
    assert perplexity == pytest.approx(math.exp(loss))
    (finished,) = (e for e in run.ranks[0] if e["event"] == "train_finished")
    assert (finished["step"], finished["val_loss"]) == (6, loss)
    assert finished["loss"] == run.values("step", "loss")[-1]
    for rank in (0, 1):
        assert run.values("rank_step", "step", rank) == [4, 6]
        for phase in ("data_s", "forward_s", "backward_s", "exposed_comm_s", "optimizer_s"):
            assert all(value > 0 for value in run.values("rank_step", phase, rank))
    assert {e["event"] for e in run.ranks[1]} == {"rank_step"}


def mixed(data, tmp_path, **request):
    """Prepare a second text and return the settings that mix it with the first."""
    from hpctrain.train.prepare import PrepareRequest, prepare_data

    source = str(Path(os.__file__).parent / "json")
    other = tmp_path / "other"
    prepare_data(PrepareRequest(sources=(source,), out=other, **request))
    return {"data.path": None, "data.mixture": f'{{"{data}" = 65, "{other}" = 34}}'}


def test_a_mixture_gives_the_same_losses_at_any_size(train, data, tmp_path):
    settings = mixed(data, tmp_path)
    runs = [train(np, settings) for np in (1, 2)]
    for run in runs:
        assert run.returncode == 0, run.stderr
    for event, field in (("step", "loss"), ("eval", "val_loss")):
        assert runs[1].values(event, field) == pytest.approx(runs[0].values(event, field), rel=1e-4)
    assert runs[0].values("step", "loss") != train(1).values("step", "loss")
    assert "65.66 % " in runs[0].values("train_started", "data")[0]


def test_subwords_train_as_bytes_do(train, tmp_path):
    tiers.require("tokenizers")
    from hpctrain.train.prepare import PrepareRequest, prepare_data

    source, out = str(Path(os.__file__).parent / "json"), tmp_path / "bpe"
    request = PrepareRequest(
        sources=(source,), out=out, tokenizer="bpe", vocab_size=400, validation_fraction=0.1
    )
    prepare_data(request)
    run = train(2, {"data.path": out, "model.vocab_size": 400, "data.tokenizer": "bpe"})
    assert run.returncode == 0, run.stderr
    losses = run.values("step", "loss")
    assert losses[0] == pytest.approx(math.log(400), rel=0.05)
    assert losses[-1] < losses[0] - 0.5
    assert run.values("step", "perplexity") == pytest.approx([math.exp(loss) for loss in losses])


def test_a_mixture_of_two_tokenizers_is_an_error_that_names_the_remedy(train, data, tmp_path):
    tiers.require("tokenizers")
    run = train(1, mixed(data, tmp_path, tokenizer="bpe", vocab_size=300), alone=True)
    assert run.returncode == 1
    assert "its tokens mean something else than those of" in run.stderr
    assert "got bpe (300 tokens, sha256 " in run.stderr
    assert "Prepare it again with --tokenizer bytes" in run.stderr


def test_the_configuration_comes_from_the_environment(train, data):
    from hpctrain.config import as_tables, parse_config

    overrides = [f"{key}={value}" for key, value in {**BASE, "data.path": data}.items()]
    config = parse_config("", overrides=[*overrides, "train.steps=3"])
    rank = RANK.replace("*sys.argv[1:]", "")
    run = train(2, rank=rank, HPCTRAIN_CONFIG_JSON=json.dumps(as_tables(config)))
    assert run.returncode == 0, run.stderr
    assert run.values("step", "step") == [1, 2, 3]


def test_more_ranks_than_sequences_names_both_once(train):
    run = train(3, {"train.global_batch_size": 2})
    assert run.returncode == 2
    assert run.stderr.count("got 2 for 3 ranks") == 1


def test_everything_wrong_is_named_at_once(train, tmp_path):
    run = train(2, {"data.path": tmp_path / "absent", "model.num_heads": 5})
    assert run.returncode == 2
    assert run.stderr.count("does not divide model.d_model = 32, got 5") == 1
    assert run.stderr.count("holds no prepared data") == 1


def test_a_problem_on_one_rank_ends_them_all_with_its_message(train, data, tmp_path):
    # Rank 1 sees other data, as on a host with a stale copy.
    from hpctrain.train.prepare import PrepareRequest, prepare_data

    stale = tmp_path / "stale"
    prepare_data(PrepareRequest(sources=(str(Path(os.__file__).parent / "json"),), out=stale))
    link = tmp_path / "link"
    rank = f"""
import os
os.environ["OMPI_COMM_WORLD_RANK"] == "1" and os.chdir({str(tmp_path)!r})
{RANK}"""
    (tmp_path / "rank0").mkdir()
    (tmp_path / "rank0" / "link").symlink_to(data)
    link.symlink_to(stale)
    rank = rank.replace("import os\n", f"import os; os.chdir({str(tmp_path / 'rank0')!r})\n", 1)
    run = train(2, {"data.path": "link"}, rank=rank)
    assert run.returncode == 1
    assert run.stderr.count("rank 1: link holds other tokens than on rank 0") == 1
    assert "rank 0: stopped because rank 1 cannot go on" in run.stdout


def test_a_loss_that_is_not_a_number_stops_with_step_and_rank(train):
    run = train(2, {"optim.lr": 1e30, "optim.warmup_steps": 0, "train.log_every_steps": 5})
    assert run.returncode == 1
    assert "step 2: the loss of rank 0 is not finite" in run.stderr
    assert not run.values("train_finished", "loss")


# Says which of its threads are left when the trainer's own code is done.
LAST_WORDS = RANK.replace(
    "os.execv",
    """from hpctrain.train.__main__ import main
from hpctrain.train.comm_torch import TorchCommunicator
def say_threads(when):
    tasks = os.listdir("/proc/self/task")
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in tasks]
    print(f"threads {when}:", *(name for name in names if "gloo_runloop" in name), flush=True)
shutdown = TorchCommunicator.shutdown
def say_and_shut_down(self):
    say_threads("before")
    shutdown(self)
TorchCommunicator.shutdown = say_and_shut_down
code = main(sys.argv[1:])
say_threads("left")
sys.exit(code)
os.execv""",
)


@pytest.mark.parametrize("end", ["done", "not finite"])
@pytest.mark.parametrize("exchange", ["native", "buckets"])
def test_no_thread_of_torch_distributed_s_outlives_the_training(train, exchange, end):
    """One that lets go of a tensor while Python ends aborts the process, once in 200 runs or so."""
    settings = {"comm.backend": "ddp", "comm.exchange": exchange, "train.steps": 4}
    if end == "not finite":
        settings |= {"optim.lr": 1e30, "optim.warmup_steps": 0}
    run = train(2, settings, rank=LAST_WORDS)
    assert run.returncode == (0 if end == "done" else 1), run.stderr
    # Of ranks that fail mpirun may end the second before it has said its word.
    assert all(re.findall("threads before:(.*)", run.stdout))
    assert set(re.findall("threads left:(.*)", run.stdout)) == {""}


@pytest.mark.parametrize(
    "end", [f"os.kill(os.getpid(), {int(signal.SIGKILL)})", "raise RuntimeError('disk on fire')"]
)
def test_a_rank_that_breaks_off_does_not_leave_the_others_waiting(train, end):
    rank = RANK.replace(
        "os.execv",
        f"""if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    from hpctrain.train.data import TrainingBatches
    read = TrainingBatches.read
    def break_off(self, step, grad_accum_steps):
        if step == 3:
            {end}
        return read(self, step, grad_accum_steps)
    TrainingBatches.read = break_off
    from hpctrain.train.__main__ import main
    sys.exit(main(sys.argv[1:]))
os.execv""",
    )
    run = train(2, rank=rank)
    assert run.returncode != 0
    assert run.stderr.count("Traceback") == run.stderr.count("RuntimeError: disk on fire")
    assert run.values("step", "step") in ([1, 2], [1, 2, 3])


def test_ranks_that_do_not_find_each_other_are_an_error(train):
    run = train(1, launched_size=4, alone=True)
    assert run.returncode == 1
    assert "did not find each other, got size 1 from Horovod (Open MPI" in run.stderr
    assert "expected 4" in run.stderr


def test_several_ranks_without_a_backend_are_an_error(train):
    run = train(2, {"comm.backend": "none"})
    assert run.returncode == 2
    assert "comm.backend: 'none' is for one rank, got 2 ranks" in run.stderr


def test_without_horovod_the_error_names_the_command_that_installs_it(train):
    rank = RANK.replace(
        "os.execv",
        """sys.modules["horovod"] = None
from hpctrain.train.__main__ import main
sys.exit(main(sys.argv[1:]))
os.execv""",
    )
    run = train(1, rank=rank, alone=True)
    assert run.returncode == 2
    assert "hpctrain install-horovod" in run.stderr
    assert (
        train(1, {"comm.backend": "none", "train.steps": 2}, rank=rank, alone=True).returncode == 0
    )


def test_data_that_does_not_fit_the_model_is_an_error_that_names_both(train):
    run = train(1, {"model.vocab_size": 300, "data.tokenizer": "bpe"}, alone=True)
    assert run.returncode == 1
    assert "got vocab_size 256 (bytes); expected model.vocab_size = 300" in run.stderr
    assert "expected data.tokenizer = 'bpe'" in run.stderr
