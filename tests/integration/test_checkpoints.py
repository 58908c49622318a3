"""Save, stop, resume: real ranks under mpirun and Horovod, through ``hpctrain run``.

Ranks are caught at exact points by a hook in their Python (sitecustomize): so nothing here
depends on how fast a machine is.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import launching
import pytest
import small_training
from small_training import as_options

from hpctrain.rundir import summarize_run

pytestmark = pytest.mark.needs("mpirun", "torch", "horovod")

STEPS = 12
SETTINGS = {
    **small_training.SETTINGS,
    "train.steps": STEPS,
    "optim.warmup_steps": 2,
    "checkpoint.every_steps": 4,
    "checkpoint.keep_last": 9,
}
HOOK = """
import os, signal, sys
if "hpctrain.train" in sys.orig_argv and "HPCTRAIN_RANK" in os.environ:
    rank, folder = os.environ["HPCTRAIN_RANK"], os.environ.get("HOOK_FOLDER", "")

    def say(word):
        open(os.path.join(folder, word + "-" + rank), "w").close()

    def wait_for_the_signal():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        say("gate")
        signal.sigwait({signal.SIGUSR1})
        say("heard")
        if os.environ["HOOK"] == "deaf":
            while True:
                signal.pause()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.raise_signal(signal.SIGUSR1)

    if os.environ.get("HOOK") == "early":  # long before the trainer can listen
        say("gate")
        signal.sigwait({signal.SIGUSR1})  # held back by the shim, or it would end us here
        os.kill(os.getpid(), signal.SIGUSR1)

    if os.environ.get("HOOK") in ("gate", "deaf"):
        from hpctrain.train.data import TrainingBatches
        read = TrainingBatches.read
        def read_at_the_gate(self, step, grad_accum_steps):
            if step == 3:
                wait_for_the_signal()
            return read(self, step, grad_accum_steps)
        TrainingBatches.read = read_at_the_gate

    if os.environ.get("HOOK") == "kill-" + rank:
        real, left = os.fsync, [int(os.environ["HOOK_COUNT"])]
        def fsync(descriptor):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)
        os.fsync = fsync
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with data, the hook, and the run `full` that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    source = str(Path(os.__file__).parent / "json")
    prepare = [sys.executable, "-m", "hpctrain", "data", "prepare", "--source", source]
    subprocess.run(
        [*prepare, "--validation-fraction", "0.1", "--out", str(folder / "data")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    done = launching.run(folder, "--np", "2", *settings(folder), env=ENV, name="full")
    assert done.returncode == 0, done.stderr
    return folder


ENV = {"OMP_NUM_THREADS": "1"}


def settings(base, **more):
    return small_training.as_options({**SETTINGS, "data.path": base / "data", **more})


def hooked(base, folder, hook, count=0):
    path = os.pathsep.join([str(base / "hook"), os.environ.get("PYTHONPATH", "")])
    return {**ENV, "PYTHONPATH": path.rstrip(os.pathsep), "HOOK": hook, "HOOK_COUNT": str(count),
            "HOOK_FOLDER": str(folder)}  # fmt: skip


def losses(path):
    """Return the loss of each step, of a step that was done again the latest."""
    events = map(json.loads, (path / "events.jsonl").read_text().splitlines())
    return {event["step"]: event["loss"] for event in events if event["event"] == "step"}


def weights(path, folder):
    from safetensors.torch import load_file

    out = folder / f"{path.name}.safetensors"
    export = [sys.executable, "-m", "hpctrain", "export", str(path), "--out", str(out)]
    subprocess.run(export, check=True, capture_output=True, timeout=60)
    return load_file(out)


def assert_equal_weights(left, right, folder):
    import torch

    mine, theirs = weights(left, folder), weights(right, folder)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def wait_for(folder, word, ranks=2):
    files = [folder / f"{word}-{rank}" for rank in range(ranks)]
    launching.wait_until(lambda: all(file.exists() for file in files), f"{word} of all ranks")


def checkpoint(path, step):
    return path / "checkpoints" / f"step-{step:08d}"


# -- the same run --------------------------------------------------------------------------------


def test_a_resume_at_the_same_size_is_bitwise_equal(base, tmp_path):
    source = checkpoint(base / "runs" / "full", 4)
    more = settings(base, **{"checkpoint.resume": source})
    done = launching.run(tmp_path, "--np", "2", *more, env=ENV)
    assert done.returncode == 0, done.stderr
    assert f"resumed    {source}: step 4" in done.stdout
    full = losses(base / "runs" / "full")
    assert losses(done.path) == {step: full[step] for step in range(5, STEPS + 1)}
    assert_equal_weights(done.path, base / "runs" / "full", tmp_path)


@pytest.mark.parametrize("sizes", [(1, 3), (4, 2)])
def test_a_run_goes_on_at_other_sizes(base, tmp_path, sizes):
    """Begun by two ranks, it goes on from step 4 at one size, and from its step 8 at another."""
    full = losses(base / "runs" / "full")
    source = checkpoint(base / "runs" / "full", 4)
    for np, step in zip(sizes, (4, 8), strict=True):
        more = {"checkpoint.resume": source, "comm.bucket_mb": 25.0 / np}
        arguments = ("--np", str(np), "--oversubscribe", *settings(base, **more))
        done = launching.run(tmp_path, *arguments, env=ENV, name=f"at{np}")
        assert done.returncode == 0, done.stderr
        expected = {later: full[later] for later in range(step + 1, STEPS + 1)}
        assert losses(done.path) == pytest.approx(expected, rel=1e-4)
        assert "warning: step-" not in done.stderr
        index = json.loads((checkpoint(done.path, STEPS) / "index.json").read_text())["index"]
        assert (index["size"], index["tokens"]) == (np, STEPS * 7 * 32)
        source = checkpoint(done.path, 8)


@pytest.mark.parametrize(
    "choice",
    [
        {"optim.sharded": "true"},
        {"comm.exchange": "native"},
        {"comm.backend": "ddp"},
        {"comm.backend": "ddp", "comm.exchange": "buckets"},
        {"comm.backend": "ddp", "optim.sharded": "true"},
    ],
    ids=lambda choice: " ".join(choice.values()) + (" buckets" if len(choice) == 1 else ""),
)
def test_whatever_has_saved_a_run_anything_else_goes_on(base, tmp_path, choice):
    full, source = losses(base / "runs" / "full"), None
    steps = (
        ("first", 2, choice, 1),
        ("plain", 1, {}, 5),
        ("again", 3, choice, 9),
    )
    for name, np, chosen, first in steps:
        more = {**chosen, **({"checkpoint.resume": source} if source else {})}
        arguments = ("--np", str(np), "--oversubscribe", *settings(base, **more))
        done = launching.run(tmp_path, *arguments, env=ENV, name=name)
        assert done.returncode == 0, done.stderr
        expected = {step: full[step] for step in range(first, STEPS + 1)}
        assert losses(done.path) == pytest.approx(expected, rel=1e-4), name
        assert "warning: step-" not in done.stderr
        source = checkpoint(done.path, first + 3)


@pytest.mark.parametrize(
    "choice",
    [{"optim.sharded": "true"}, {"comm.backend": "ddp"}, {"train.precision": "fp16"}],
)
def test_it_goes_on_bitwise_with_them_too(base, tmp_path, choice):
    whole = launching.run(tmp_path, "--np", "2", *settings(base, **choice), env=ENV, name="whole")
    assert whole.returncode == 0, whole.stderr
    more = {**choice, "checkpoint.resume": checkpoint(whole.path, 4)}
    rest = launching.run(tmp_path, "--np", "2", *settings(base, **more), env=ENV, name="rest")
    assert rest.returncode == 0, rest.stderr
    assert losses(rest.path) == {step: losses(whole.path)[step] for step in range(5, STEPS + 1)}
    assert_equal_weights(rest.path, whole.path, tmp_path)


def test_a_damaged_share_of_one_rank_leads_all_back_to_the_checkpoint_before(base, tmp_path):
    shutil.copytree(base / "runs" / "full", tmp_path / "runs" / "r")
    root = tmp_path / "runs" / "r" / "checkpoints"
    share = root / "step-00000012" / "rank-00001.safetensors"
    content = bytearray(share.read_bytes())
    content[-1] ^= 1
    share.write_bytes(content)
    done = launching.run(tmp_path, "--resume", "--set", "checkpoint.keep_last=1", env=ENV)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"warning: {share}: ") == 1, done.stderr
    assert done.stderr.count("going back to the checkpoint before it") == 1
    assert "step-00000008: step 8" in done.stdout
    assert losses(done.path) == losses(base / "runs" / "full")
    assert_equal_weights(done.path, base / "runs" / "full", tmp_path)
    kept = sorted(path.name for path in root.glob("step-*"))
    assert kept == ["step-00000012"]


def test_a_tokens_goal_holds_whatever_the_batch_before(base, tmp_path):
    per_step = 7 * 32
    source = checkpoint(base / "runs" / "full", 4)
    more = {"checkpoint.resume": source, "train.tokens": 10 * per_step}
    batch = {"train.global_batch_size": 14}
    done = launching.run(tmp_path, "--np", "2", *settings(base, **more, **batch), env=ENV)
    assert done.returncode == 0, done.stderr
    events = map(json.loads, (done.path / "events.jsonl").read_text().splitlines())
    steps = [event for event in events if event["event"] == "step"]
    assert [event["tokens"] // per_step for event in steps] == [6, 8, 10]
    assert [event["steps"] for event in steps] == [7, 7, 7]


def test_both_examples_of_one_s_own_as_a_user_runs_them(tmp_path):
    """With data of one's own: saved, resumed bitwise, and spelled."""
    for example in (Path(__file__).parents[2] / "examples").glob("*.py"):
        shutil.copy(example, tmp_path)
    own = {
        "data.factory": "own_data:build", "model.factory": "own_model:build", "train.steps": 8,
        "train.global_batch_size": 7, "model.seq_len": 32, "train.eval_sequences": 5,
        "checkpoint.every_steps": 4, "train.device": "cpu",
    }  # fmt: skip
    whole = launching.run(tmp_path, "--np", "2", *as_options(own), env=ENV, name="whole")
    assert whole.returncode == 0, whole.stderr
    more = as_options({**own, "checkpoint.resume": checkpoint(whole.path, 4)})
    rest = launching.run(tmp_path, "--np", "2", *more, env=ENV, name="rest")
    assert rest.returncode == 0, rest.stderr
    assert losses(rest.path) == {step: losses(whole.path)[step] for step in range(5, 9)}
    generate = [sys.executable, "-m", "hpctrain", "generate", str(rest.path), "--prompt", "1+1="]
    said = subprocess.run(
        [*generate, "--tokens", "5"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        errors="replace",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("1+1=")


@pytest.mark.parametrize(("rank", "counts"), [(0, (3, 12, 18)), (1, (2, 5))])
def test_a_run_killed_in_the_middle_of_saves_goes_on(base, tmp_path, rank, counts):
    from hpctrain.train.checkpoint_folder import find_damage, list_steps, read_index

    root = tmp_path / "runs" / "r" / "checkpoints"
    arguments = ("--np", "2", *settings(base, **{"checkpoint.every_steps": 1}))
    for attempt, count in enumerate(counts):
        env = hooked(base, tmp_path, f"kill-{rank}", count)
        done = launching.run(tmp_path, *arguments, *(["--resume"] if attempt else []), env=env)
        assert done.returncode == 137, done.stderr
        for step in list_steps(root):
            folder = root / f"step-{step:08d}"
            assert find_damage(folder, read_index(folder)) == []
    assert list_steps(root)
    done = launching.run(tmp_path, "--resume", env=ENV)  # the settings stand in run.toml
    assert done.returncode == 0, done.stderr
    assert losses(done.path) == losses(base / "runs" / "full")
    assert_equal_weights(done.path, base / "runs" / "full", tmp_path)
    assert not list(root.glob(".step*"))


def test_a_run_that_is_over_says_so(base):
    done = launching.run(base, "--resume", env=ENV, name="full")
    assert done.returncode == 0, done.stderr
    assert f"nothing is left to do: train.steps = {STEPS}" in done.stdout
    assert done.event("run_finished")["state"] == "done"


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_schedulers_signal_saves_and_the_run_goes_on(base, tmp_path, number):
    arguments = ("--np", "2", *settings(base, **{"checkpoint.every_steps": 0}))
    process = launching.start(tmp_path, *arguments, env=hooked(base, tmp_path, "gate"))
    wait_for(tmp_path, "gate")
    process.send_signal(number)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 75, done.stderr
    assert f"{number.name}: the ranks were asked to save and leave" in done.stderr
    assert "Go on with: hpctrain run --resume --name r" in done.stderr
    assert done.event("run_finished")["state"] == "resumable"
    assert done.event("train_stopped")["step"] == 5
    assert [done.rank_events(rank)[-1]["exit_code"] for rank in (0, 1)] == [0, 0]
    assert summarize_run(done.path).state == "resumable"

    resumed = launching.run(tmp_path, "--resume", env=ENV)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(resumed.path) == losses(base / "runs" / "full")
    assert_equal_weights(resumed.path, base / "runs" / "full", tmp_path)
    assert summarize_run(done.path).state == "done"


def test_a_signal_waits_until_the_trainer_listens(base, tmp_path):
    env = hooked(base, tmp_path, "early")
    process = launching.start(tmp_path, "--np", "2", *settings(base), env=env)
    wait_for(tmp_path, "gate")
    process.send_signal(signal.SIGTERM)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 75, done.stderr
    assert done.event("train_stopped")["step"] == 1


def test_a_second_sigterm_ends_at_once(base, tmp_path):
    process = launching.start(
        tmp_path, "--np", "2", *settings(base), env=hooked(base, tmp_path, "deaf")
    )
    wait_for(tmp_path, "gate")
    process.send_signal(signal.SIGTERM)
    wait_for(tmp_path, "heard")
    process.send_signal(signal.SIGTERM)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 143, done.stderr
    assert done.event("run_finished")["state"] == "stopped"


def test_ranks_that_do_not_leave_are_ended(base, tmp_path):
    more = settings(base, **{"launch.save_timeout_s": 0.2, "launch.grace_s": 0.2})
    process = launching.start(tmp_path, "--np", "2", *more, env=hooked(base, tmp_path, "deaf"))
    wait_for(tmp_path, "gate")
    process.send_signal(signal.SIGUSR1)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 143, done.stderr
    assert "did not leave in time (launch.save_timeout_s)" in done.stderr


# -- programs of others --------------------------------------------------------------------------

FOREIGN = """
import os, signal, subprocess, sys
helper = subprocess.Popen(["sleep", "600"])

def save(*_):
    assert helper.poll() is None  # the signal is for the program alone
    print("saved", flush=True)
    helper.kill()
    os._exit(0)

signal.signal(signal.SIGUSR1, save)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(
    ("option", "number", "code", "saved"),
    [
        (["--save-signal"], signal.SIGTERM, 75, True),
        (["--save-signal"], signal.SIGUSR1, 75, True),
        (["--save-signal"], signal.SIGINT, 130, False),
        ([], signal.SIGTERM, 143, False),
        ([], signal.SIGUSR1, 143, False),
    ],
)
def test_a_foreign_program_saves_only_if_it_says_that_it_can(tmp_path, option, number, code, saved):
    program = ("--", sys.executable, "-c", FOREIGN)
    process = launching.start(tmp_path, "--np", "2", *option, *program)
    launching.wait_for_output(tmp_path, [0, 1])
    process.send_signal(number)
    done = launching.finish(process, tmp_path)
    assert done.returncode == code, done.stderr
    for rank in (0, 1):
        assert done.log(rank) == (b"ready\nsaved\n" if saved else b"ready\n")
    assert done.event("run_finished")["state"] == ("resumable" if saved else "stopped")


SLOW_TO_SAVE = """
import os, signal, sys

def save(*_):
    print("saving", flush=True)
    open(sys.argv[1]).close()  # until the test opens the other end
    os._exit(0)

signal.signal(signal.SIGUSR1, save)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_what_comes_while_ranks_save(tmp_path, number, code):
    # SIGUSR1 as a warning, SIGTERM when time is nearly up: they are saving already. Ctrl-C is
    # a person who does not want to wait.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = ("--", sys.executable, "-c", SLOW_TO_SAVE, str(fifo))
    process = launching.start(tmp_path, "--np", "1", "--save-signal", *program)
    log = tmp_path / "runs" / "r" / "logs" / "rank-00000.log"
    launching.wait_for_output(tmp_path, [0])
    process.send_signal(signal.SIGUSR1)
    launching.wait_until(lambda: b"saving" in log.read_bytes(), "the save to begin")
    process.send_signal(number)
    if code == 75:
        fifo.open("w").close()
    done = launching.finish(process, tmp_path)
    assert done.returncode == code, done.stderr
