"""Building Horovod: the plan, the changes, the cache. The real build is what `make setup` does."""

import hashlib
import io
import json
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hpctrain import horovod_build
from hpctrain.errors import BuildError
from hpctrain.executor import Command
from hpctrain.horovod_build import plan_horovod_build, run_horovod_build
from hpctrain.horovod_facts import BuildFacts, GpuFacts
from hpctrain.horovod_recipe import CHANGES, Change, apply_changes
from hpctrain.horovod_stamp import read_horovod_stamp

CPU = BuildFacts(
    python="/env/bin/python",
    python_tag="cpython-311-x86_64-linux-gnu",
    prefix="/env",
    site_packages="/env/lib/python3.11/site-packages",
    torch="2.13.0+cpu",
    torch_cuda=None,
    mpi_flavour="openmpi5",
    mpi_version="5.0.11",
    mpicxx="/env/bin/mpicxx",
    mpi_lib="/env/lib",
    cmake="/env/bin/cmake",
    path="/usr/bin:/bin",
    machine="x86_64",
    arch_flags=("-mavx",),
    cores=2,
    no_gpu_reason="torch is a CPU build",
)
GPU = replace(
    CPU,
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    gpu=GpuFacts(
        cuda="13.0",
        cuda_home="/usr/local/cuda",
        nccl="2.29.7",
        nccl_include="/env/nccl/include",
        nccl_library="/env/nccl/lib/libnccl.so.2",
        include_folders=("/env/cu13/include",),
        compute_capabilities=("80", "90"),
    ),
)


def test_the_whole_cpu_build():
    plan = plan_horovod_build(CPU)
    assert plan.build == Command(
        ("/env/bin/python", "setup.py", "bdist_wheel"),
        {
            "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
            "HOROVOD_BUILD_ARCH_FLAGS": "-mavx",
            "HOROVOD_CMAKE": "/env/bin/cmake",
            "HOROVOD_WITHOUT_GLOO": "1",
            "HOROVOD_WITHOUT_MXNET": "1",
            "HOROVOD_WITHOUT_TENSORFLOW": "1",
            "HOROVOD_WITH_MPI": "1",
            "HOROVOD_WITH_PYTORCH": "1",
            "HPCTRAIN_RPATH": "$ORIGIN/../../torch/lib;$ORIGIN/../../../..",
            "HPCTRAIN_WITHOUT_CUDA": "1",
            "MAKEFLAGS": "-j2",
            "PATH": "/env/bin:/usr/bin:/bin",
        },
    )


def test_a_gpu_build_has_nccl_operations_and_nothing_of_a_cpu_build():
    env = plan_horovod_build(GPU).build.env
    assert env["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert env["HOROVOD_CUDA_HOME"] == env["CUDA_HOME"] == "/usr/local/cuda"
    assert env["HOROVOD_BUILD_CUDA_CC_LIST"] == "80,90"
    assert "HPCTRAIN_WITHOUT_CUDA" not in env
    assert "$ORIGIN/../../nvidia/nccl/lib" in env["HPCTRAIN_RPATH"].split(";")


def test_an_mpi_outside_the_environment_is_found_by_its_absolute_path():
    env = plan_horovod_build(replace(CPU, mpi_lib="/opt/openmpi/lib")).build.env
    assert env["HPCTRAIN_RPATH"] == "$ORIGIN/../../torch/lib;/opt/openmpi/lib"


@pytest.mark.parametrize(
    "other",
    [
        replace(CPU, torch="2.13.0"),
        replace(CPU, python_tag="cpython-312-x86_64-linux-gnu"),
        replace(CPU, mpi_flavour="openmpi4"),
        replace(CPU, mpi_version="5.0.12"),
        replace(CPU, mpi_lib="/opt/openmpi/lib"),
        replace(CPU, machine="aarch64"),
        replace(CPU, arch_flags=()),
        GPU,
        replace(GPU, gpu=replace(GPU.gpu, nccl="2.30.7")),
        replace(GPU, gpu=replace(GPU.gpu, compute_capabilities=("90",))),
    ],
)
def test_whatever_changes_the_binary_changes_the_key(other):
    assert plan_horovod_build(other).key != plan_horovod_build(CPU).key


def test_where_the_environment_stands_and_how_many_cores_does_not_change_the_key():
    moved = replace(
        CPU, prefix="/b", python="/b/bin/python", mpi_lib="/b/lib", cores=64, path="/bin",
        site_packages="/b/lib/python3.11/site-packages", cmake="/usr/bin/cmake",
    )  # fmt: skip
    assert plan_horovod_build(moved).key == plan_horovod_build(CPU).key


def test_a_change_of_the_recipe_changes_the_key(monkeypatch):
    before = plan_horovod_build(CPU).key
    monkeypatch.setattr("hpctrain.horovod_recipe.CHANGES", CHANGES[:-1])
    assert plan_horovod_build(CPU).key != before


def test_a_text_that_is_not_there_fails_and_changes_nothing(tmp_path):
    (tmp_path / "a").write_text("one two two")
    changes = (
        Change("a", "one", "1", "why"),
        Change("a", "two", "2", "why"),
        Change("missing", "x", "y", "why"),
    )
    with pytest.raises(BuildError) as problem:
        apply_changes(tmp_path, changes)
    assert len(problem.value.messages) == 2
    assert "a: cannot be changed, got 2 times 'two'; expected 1" in str(problem.value)
    assert (tmp_path / "a").read_text() == "one two two"


def test_changes_of_one_file_build_on_each_other(tmp_path):
    (tmp_path / "a").write_text("one")
    apply_changes(tmp_path, (Change("a", "one", "two", "w"), Change("a", "two", "three", "w")))
    assert (tmp_path / "a").read_text() == "three"


class Pip:
    """Stands for pip and the compiler at the executor: a tiny source, a build that notes itself."""

    def __init__(self, folder: Path, monkeypatch, archive: bytes | None = None) -> None:
        files = {change.file: "" for change in CHANGES}
        for change in CHANGES:
            files[change.file] += change.old + "\n"
        memory = io.BytesIO()
        with tarfile.open(fileobj=memory, mode="w:gz") as tar:
            for name, text in {**files, "horovod/__init__.py": ""}.items():
                entry = tarfile.TarInfo(f"horovod-0.28.1/{name}")
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        good = memory.getvalue()
        self.builds = folder / "builds"
        download = folder / "download.tar.gz"
        download.write_bytes(good if archive is None else archive)
        monkeypatch.setattr(horovod_build, "SDIST_SHA256", hashlib.sha256(good).hexdigest())
        fetch = f'cp "{download}" "$2/horovod-0.28.1.tar.gz"'
        build = (
            f'echo build >> "{self.builds}"; echo "[ 50%] compiling"; mkdir dist; '
            "cp horovod/hpctrain_build.json dist/horovod.whl; $FAIL"
        )
        plan = plan_horovod_build(CPU)
        self.plan = replace(
            plan,
            download=Command(("sh", "-c", fetch, "sh")),
            build=Command(("sh", "-c", build), {"FAIL": "true"}),
        )

    @property
    def count(self) -> int:
        return len(self.builds.read_text().splitlines()) if self.builds.exists() else 0


def test_a_wheel_is_built_once_and_carries_its_stamp(tmp_path, monkeypatch):
    pip, said = Pip(tmp_path, monkeypatch), []
    wheel = run_horovod_build(pip.plan, tmp_path / "cache", said.append)
    assert json.loads(wheel.read_text())["mpi_version"] == "5.0.11"
    assert any(line.startswith("compiling  50 %") for line in said)
    assert run_horovod_build(pip.plan, tmp_path / "cache", said.append) == wheel
    assert pip.count == 1
    run_horovod_build(pip.plan, tmp_path / "cache", said.append, force=True)
    assert pip.count == 2


def test_two_builds_at_once_do_the_work_once(tmp_path, monkeypatch):
    pip, wheels = Pip(tmp_path, monkeypatch), []
    threads = [
        threading.Thread(
            target=lambda: wheels.append(run_horovod_build(pip.plan, tmp_path / "c", print))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wheels) == 3
    assert len(set(wheels)) == 1
    assert pip.count == 1


def test_another_sdist_than_the_known_one_is_refused(tmp_path, monkeypatch):
    pip = Pip(tmp_path, monkeypatch, archive=b"not the source")
    with pytest.raises(BuildError, match="sha256 is wrong"):
        run_horovod_build(pip.plan, tmp_path / "cache", print)
    assert pip.count == 0


def test_a_failed_build_shows_its_last_lines_and_leaves_no_wheel(tmp_path, monkeypatch):
    pip = Pip(tmp_path, monkeypatch)
    script = "echo no such header; echo 'Traceback (most recent call last)'; echo File; exit 3"
    failing = replace(pip.plan, build=Command(("sh", "-c", script)))
    with pytest.raises(BuildError, match=r"exit code 3(.|\n)*no such header\nThe whole log: .*log"):
        run_horovod_build(failing, tmp_path / "cache", print)
    assert not list((tmp_path / "cache").rglob("*.whl"))
    assert run_horovod_build(pip.plan, tmp_path / "cache", print).exists()


def test_the_stamp_of_another_or_no_horovod_is_none(tmp_path):
    assert read_horovod_stamp(tmp_path) is None
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "hpctrain_build.json").write_text('{"horovod": "0.28.1"}')
    assert read_horovod_stamp(tmp_path) is None
