"""Rules of the design that a machine can check: imports, processes, help and docs."""

import ast
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hpctrain.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hpctrain"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "horovod", "mpi4py", "numpy"}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def is_rank_side(path):
    has_workers = {"bench", "preflight"} & set(path.parts)
    return "train" in path.parts or (bool(has_workers) and path.name.startswith("worker"))


def test_only_the_rank_side_imports_torch():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if HEAVY - {"numpy"} & set(imports_of(path)) and not is_rank_side(path)
    }
    assert found == set()


def test_only_the_executor_starts_processes():
    started_by = {
        path.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (
            node.func.value.id == "subprocess"
            or (node.func.value.id == "os" and node.func.attr in ("system", "fork", "posix_spawn"))
        )
    }
    assert started_by == {"executor.py"}
    assert not any("multiprocessing" in set(imports_of(path)) for path in MODULES)


def test_python_terraform_starts_nothing_by_itself():
    """It has one place that starts a process, and the one module that imports it overrides it."""
    python_terraform = pytest.importorskip("python_terraform")
    from hpctrain.clusters.cloud.terraform import TerraformAdapter

    importers = {path.name for path in MODULES if "python_terraform" in set(imports_of(path))}
    assert importers == {"terraform.py"}
    assert Path(python_terraform.__file__).read_text().count("Popen(") == 1
    assert "cmd" in vars(TerraformAdapter)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["runs", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from hpctrain.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(','.join(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.strip().split(","))
    assert not loaded & (HEAVY | {"rich", "psutil", "msgspec", "ClusterShell"})


def test_the_shim_imports_little():
    """All of its modules: each is imported by the first."""
    code = "import sys, hpctrain.launch.shim; print(','.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.strip().split(","))
    parts = {f"hpctrain.launch.{path.stem}" for path in (PACKAGE / "launch").glob("shim*.py")}
    assert len(parts) == 4
    assert parts <= loaded
    assert not loaded & {
        "dataclasses",
        "inspect",
        "pathlib",
        "click",
        "asyncio",
        "msgspec",
        "psutil",
    }


def commands():
    def walk(name, command):
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                yield from walk(f"{name} {child}", command.get_command(context, child))

    for name in COMMANDS:
        yield from walk(name, cli.get_command(click.Context(cli), name))


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_command_and_option_has_help(name, command):
    assert command.help
    silent = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_a_page(name):
    command = cli.get_command(click.Context(cli), name)
    assert "Examples:" in (command.epilog or "") or isinstance(command, click.Group)
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    assert any(f"hpctrain {name}" in page for page in pages)


def test_markdown_links_resolve():
    import re

    broken = []
    for page in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "hostfiles").glob("*.md"),
        *(ROOT / "terraform").glob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
