"""What `pip install .` brings: a command that works without torch, and all the files it needs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = ("No matching distribution", "Could not find a version", "ConnectionError", "Timeout")
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", ".cache", ".*_cache", "__pycache__", "build", "dist", "runs", "data",
    "*.egg-info",
)  # fmt: skip
BUILD = "from setuptools import build_meta as b; import sys; getattr(b, sys.argv[1])(sys.argv[2])"


def build(kind, source, into):
    into.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(into)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return next(into.iterdir())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout, so that building leaves nothing in it."""
    copy = tmp_path_factory.mktemp("source") / "hpctrain"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SOURCE)
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build("wheel", source, tmp_path_factory.mktemp("wheel") / "out")


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def data_files(source):
    return {
        f"hpctrain/{path.relative_to(base)}"
        for base, folder in (
            (source, "terraform"),
            (source, "hostfiles"),
            (source / "hpctrain", "recipes"),
        )
        for path in (base / folder).rglob("*")
        if path.is_file()
    } | {
        str(path.relative_to(source))
        for path in (source / "hpctrain").rglob("*")
        if path.suffix in (".toml", ".j2") or path.name == "constraints.txt"
    }


def test_the_wheel_holds_every_module_and_data_file_and_nothing_else(source, wheel):
    modules = {
        str(path.relative_to(source))
        for path in (source / "hpctrain").rglob("*.py")
        if not path.is_relative_to(source / "hpctrain" / "recipes")
    }
    expected = modules | data_files(source)
    assert "hpctrain/recipes/demo.toml" in expected
    assert any(name.startswith("hpctrain/terraform/") for name in expected)
    assert names_in(wheel) == expected


def test_a_wheel_from_the_sdist_is_the_same(source, wheel, tmp_path):
    with tarfile.open(build("sdist", source, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path)
    unpacked = next(path for path in tmp_path.iterdir() if path.name.startswith("hpctrain-"))
    assert names_in(build("wheel", unpacked, tmp_path / "wheel")) == names_in(wheel)


def test_no_extra_names_horovod(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    requirements = [line.lower() for line in lines if line.startswith("Requires-Dist:")]
    assert requirements
    assert not [line for line in requirements if line.split()[1].startswith("horovod")]


def test_in_an_empty_environment_the_command_works_without_torch(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*argv):
        return subprocess.run(
            argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )

    pins = str(ROOT / "constraints.txt")
    done = run(python, "-m", "pip", "install", "--retries", "1", "-c", pins, str(wheel))
    if done.returncode != 0 and any(words in done.stderr for words in OFFLINE):
        pytest.skip(f"pip's index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr

    done = run(tmp_path / "env" / "bin" / "hpctrain", "--help")
    assert done.returncode == 0, done.stderr
    assert "install-horovod" in done.stdout
    assert run(python, "-c", "import torch").returncode != 0
    look = "import hpctrain, pathlib; f = pathlib.Path(hpctrain.__file__).parent; "
    look += "print(*(d for d in ('terraform', 'hostfiles', 'recipes') if any((f / d).iterdir())))"
    assert run(python, "-c", look).stdout.split() == ["terraform", "hostfiles", "recipes"]


def test_this_environment_imports_the_checkout_without_an_import_hook():
    """setuptools' default editable install adds a finder that every start of Python pays for."""
    site_packages = Path(sysconfig.get_path("purelib"))
    hooks = list(site_packages.glob("__editable__*finder*"))
    assert not [hook for hook in hooks if "hpctrain" in hook.name]
