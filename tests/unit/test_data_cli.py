"""`hpctrain data` on the command line, and that describing data needs no torch."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from hpctrain.cli.data import command
from hpctrain.errors import DataError


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("some words\n" * 5000)
    return path


def test_prepare_then_info(tmp_path, text):
    pytest.importorskip("numpy")
    out = tmp_path / "out"
    made = run("prepare", text, "--out", out, "--validation-fraction", "0.1")
    assert made.exit_code == 0, made.output
    assert f"Made {out}" in made.output
    assert "bytes: 256 tokens, uint8, 0 ends a document" in made.output
    assert (
        "Already there"
        in run("prepare", "--source", text, "--out", out, "--validation-fraction", "0.1").output
    )
    shown = run("info", out, "--verify")
    assert shown.exit_code == 0
    assert "1 file(s), 0.1 MB" in shown.output
    assert "intact      yes (checksums)" in shown.output


def test_info_of_damaged_data_fails(tmp_path, text):
    pytest.importorskip("numpy")
    run("prepare", text, "--out", tmp_path / "out")
    shard = tmp_path / "out" / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert run("info", tmp_path / "out").exit_code == 0
    assert isinstance(run("info", tmp_path / "out", "--verify").exception, DataError)


def test_prepare_without_text_says_what_to_give(tmp_path):
    result = run("prepare", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--source stdlib" in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["prepare", "--help"], ["info", "--help"]])
def test_help_has_an_example(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    assert "hpctrain data" in result.output


def test_describing_data_and_models_loads_neither_torch_nor_numpy():
    code = (
        "import sys, hpctrain.cli.data, hpctrain.train.prepare, hpctrain.train.shards, "
        "hpctrain.train.presets, hpctrain.train.__main__\n"
        "print([name for name in ('torch', 'numpy', 'horovod') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
