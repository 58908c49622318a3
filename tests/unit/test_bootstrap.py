"""The set-up's decisions: what is missing, where torch comes from, what is done again."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


@pytest.fixture
def tools(monkeypatch):
    """Make tools/ importable, as running a script in it does."""
    monkeypatch.syspath_prepend(str(TOOLS))


def test_all_that_is_missing_is_named_at_once(tools, tmp_path):
    from prerequisites import describe, find_missing

    nothing = find_missing((3, 11), lambda _: False, lambda _: False, str(tmp_path))
    text = describe(nothing)
    assert "apt-get install -y python3.11-venv python3.11-dev g++ make" in text
    assert [item.what for item in nothing if not item.only_horovod] == ["venv and ensurepip"]


def test_a_machine_with_everything_lacks_nothing(tools, tmp_path):
    from prerequisites import find_missing

    (tmp_path / "Python.h").touch()
    assert find_missing((3, 10), lambda _: True, lambda _: True, str(tmp_path)) == []
    old = find_missing((3, 9), lambda _: True, lambda _: True, str(tmp_path))
    assert [(item.what, item.only_horovod) for item in old] == [
        ("Python 3.10 or newer (this is 3.9)", False)
    ]


@pytest.mark.parametrize(
    ("index_url", "nvidia", "expected"),
    [
        ("https://i", True, [("--index-url", "https://i", "torch==2.13.0")]),
        ("https://i", False, [("--index-url", "https://i", "torch==2.13.0")]),
        ("", True, [("torch==2.13.0",)]),
        (
            "",
            False,
            [
                ("torch==2.13.0+cpu",),
                (
                    "--extra-index-url",
                    "https://download.pytorch.org/whl/cpu",
                    "torch==2.13.0+cpu",
                ),
                ("torch==2.13.0",),
            ],
        ),
    ],
)
def test_where_torch_comes_from(tools, index_url, nvidia, expected):
    from torch_source import plan_torch

    plan = plan_torch("2.13.0", index_url, nvidia)
    assert [attempt.arguments for attempt in plan] == expected
    if expected[-1] == ("torch==2.13.0",):
        assert "several GB" in plan[-1].what


class Pip:
    """A step's runner whose pip has the requirements in `has`, and no others."""

    def __init__(self, has, log, says="ERROR: No matching distribution found for torch==2.13.0"):
        self.has, self.log, self.asked, self.notes = has, log, [], []
        log.write_text(says)

    def attempt(self, argv):
        self.asked.append(argv[-1])
        return 0 if argv[-1] in self.has else 1

    def run(self, argv, hint):
        """What torch itself needs."""

    def note(self, text):
        self.notes.append(text)

    def failure(self, code, hint):
        return RuntimeError(hint)


@pytest.mark.parametrize(
    ("answers", "has", "asked"),
    [
        (False, {"torch==2.13.0+cpu"}, ["torch==2.13.0+cpu"]),
        (False, {"torch==2.13.0"}, ["torch==2.13.0+cpu", "torch==2.13.0"]),
        (True, {"torch==2.13.0"}, ["torch==2.13.0+cpu"] * 2 + ["torch==2.13.0"]),
    ],
)
def test_torchs_own_index_is_asked_only_where_it_answers(
    tools, tmp_path, monkeypatch, answers, has, asked
):
    import setup_steps
    from torch_source import plan_torch

    monkeypatch.setattr(setup_steps, "probe_index", lambda url: answers)
    pip = Pip(has, tmp_path / "log")
    setup_steps.install_torch("2.13.0", plan_torch("2.13.0", "", False))(pip)
    assert pip.asked == asked
    assert any("several GB" in note for note in pip.notes) == ("torch==2.13.0" in has)


def test_no_wheel_is_told_from_no_network(tools, tmp_path, monkeypatch):
    import setup_steps
    from torch_source import plan_torch

    monkeypatch.setattr(setup_steps, "probe_index", lambda url: False)
    step = setup_steps.install_torch("2.13.0", plan_torch("2.13.0", "", False))
    with pytest.raises(RuntimeError, match=r"no torch 2\.13\.0 for Python 3\.\d+ on"):
        step(Pip(set(), tmp_path / "log"))
    refused = "Retrying after connection broken by 'NewConnectionError'\nNo matching distribution"
    with pytest.raises(RuntimeError, match="Check the network"):
        step(Pip(set(), tmp_path / "log", f"{refused} found for torch==2.13.0"))


def test_an_index_that_does_not_answer_is_given_up_quickly(tools):
    from torch_source import probe_index

    assert probe_index("http://127.0.0.1:9") is False  # the discard port: nobody listens


def test_a_step_is_done_again_only_when_its_inputs_change(tools, tmp_path, monkeypatch):
    import setup_steps

    monkeypatch.setattr(setup_steps, "DONE", tmp_path / "done.json")
    monkeypatch.setattr(setup_steps, "PYTHON", Path(sys.executable))
    step = setup_steps.Step("mpi", "MPI", ("wheel",), lambda progress: None)
    assert not setup_steps.is_done(step)
    setup_steps.remember(step)
    assert setup_steps.is_done(step)
    assert setup_steps.is_done(replace(step, what="other words"))
    assert not setup_steps.is_done(replace(step, inputs=("openmpi4 4.1.8 /usr/bin/mpirun",)))
    (tmp_path / "done.json").write_text('{"mpi": ')
    assert not setup_steps.is_done(step)


def test_every_step_but_the_tests_is_in_every_setup(tools, tmp_path, monkeypatch):
    import setup_steps

    monkeypatch.setattr(setup_steps, "VENV", tmp_path)
    plain = [step.name for step in setup_steps.plan_steps(test=False)]
    assert plain == ["venv", "torch", "packages", "mpi", "hpctrain", "horovod"]
    assert {step.name for step in setup_steps.plan_steps(test=True)} == {*plain, "tests"}


def test_a_failed_step_shows_its_last_lines_its_log_and_the_advice(tools, tmp_path):
    from progress import Progress, StepFailed

    progress = Progress(1, tmp_path)
    noisy = "import sys; [print(n, flush=True) for n in range(100)]; sys.exit('it broke')"
    with pytest.raises(StepFailed) as failed, progress.step("torch", "torch 2.13.0"):
        progress.run((sys.executable, "-c", noisy), "Try this.")
    text = str(failed.value)
    assert "[1/1] torch 2.13.0 … failed, got exit code 1" in text
    assert "    it broke" in text
    assert "    99" in text
    assert "    50\n" not in text
    assert str(tmp_path / "torch.log") in text
    assert text.endswith("Try this.")


def test_constraints_pin_everything_that_setup_cfg_names(tools):
    import setup_steps

    pins = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for requirements in setup_steps.read_requirements().values():
        for requirement in requirements:
            name = re.split(r"[\s<>=;\[]", requirement)[0].lower()
            assert name in pins | {"hpctrain"}


def test_make_help_explains_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE)
    done = subprocess.run(
        ["make", "-C", str(ROOT)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert targets
    for target in targets:
        assert f"  {target} " in done.stdout


def test_packages_that_are_here_are_not_installed_again(tools, tmp_path):
    from test_deps import PACKAGES, find_absent

    for package in PACKAGES[1:]:
        program = tmp_path / package.program
        program.touch()
        program.chmod(0o755)
    assert find_absent(PACKAGES, str(tmp_path)) == [PACKAGES[0]]
