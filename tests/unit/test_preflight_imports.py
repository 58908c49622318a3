"""Preflight: what a program imports, by files as values and the real Python that parses them."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpctrain.executor import LocalExecutor
from hpctrain.preflight import scan_imports, try_imports
from hpctrain.preflight.checks.imports import IMPORTS, SAME_SCRIPT, describe
from hpctrain.preflight.fleet import Answer, Fleet
from hpctrain.preflight.look_at_imports import (
    look_at_imports,
    read_trials,
    scan_and_try,
    try_packages,
)
from hpctrain.preflight.program import (
    PythonProgram,
    find_python_program,
    parse_python_words,
)
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN


def write(folder, files=None, **more):
    """Write modules, by name or by path without its end."""
    for name, text in {**(files or {}), **more}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def scan(folder, script="train.py", **request):
    """Scan as a host does: in a process of the program's own Python."""
    request = request or {"script": script}
    done = subprocess.run(
        [sys.executable, scan_imports.__file__], input=json.dumps(request), cwd=folder,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.partition(scan_imports.MARK)[2])


def said(found):
    return [(p["kind"], Path(p["file"]).name, p["line"], p["name"]) for p in found["problems"]]


NOT_RUN = "\nopen('ran', 'w')\n"


def test_the_program_and_its_modules_are_parsed_and_never_run(tmp_path):
    texts = {
        "train": "import os\nimport helper\nfrom parts import model\nfrom parts.data import load",
        "helper": "import json", "parts/__init__": "",
        "parts/model": "from . import data\nfrom .data import load",
        "parts/data": "def load(): pass",
    }  # fmt: skip
    write(tmp_path, {name: text + NOT_RUN for name, text in texts.items()})
    found = scan(tmp_path)
    assert said(found) == []
    names = {str(Path(path).relative_to(tmp_path)) for path in found["files"]}
    assert names == {"train.py", "helper.py", "parts/__init__.py", "parts/model.py",
                     "parts/data.py"}  # fmt: skip
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("train", "problem", "near"),
    [
        ("import os\nimport no_such_thing", ("module", "train.py", 2, "no_such_thing"), ""),
        ("import helpr", ("module", "train.py", 1, "helpr"), "helper"),
        ("from helper import lod", ("name", "train.py", 1, "helper.lod"), "load"),
        ("import helper.deep", ("module", "train.py", 1, "helper.deep"), ""),
        ("from parts import modl", ("name", "train.py", 1, "parts.modl"), "model"),
        ("import parts.modl", ("module", "train.py", 1, "parts.modl"), "model"),
        ("from . import helper", ("relative", "train.py", 1, "."), ""),
        ("def broken(:", ("syntax", "train.py", 1, "train.py"), ""),
        ("if True:\n  pass\nimport broken", ("syntax", "broken.py", 2, "broken.py"), ""),
        ("import importlib\nimportlib.import_module('no_such')",
         ("module", "train.py", 2, "no_such"), ""),
    ],
)  # fmt: skip
def test_an_import_that_would_fail_is_named_with_its_line(tmp_path, train, problem, near):
    write(tmp_path, {"parts/__init__": "", "parts/model": ""}, train=train,
          helper="def load(): pass", broken="x = 1\ny = = 2")  # fmt: skip
    (found,) = scan(tmp_path)["problems"]
    kind, file, line, name = problem
    assert (found["kind"], Path(found["file"]).name, found["line"]) == (kind, file, line)
    assert found["name"].rpartition("/")[2] == name
    assert found["near"] == near
    assert f"{found['file']}:{line}: " in describe(found)


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("import no_such", "always"),
        ("class A:\n    import no_such", "always"),
        ("for i in range(3):\n    import no_such", "always"),
        ("if __name__ == '__main__':\n    import no_such", "always"),
        ("def later():\n    import no_such", "maybe"),
        ("if x:\n    import no_such", "maybe"),
        ("try:\n    import no_such\nfinally:\n    pass", "always"),
        ("try:\n    import no_such\nexcept KeyError:\n    pass", "always"),
        ("try:\n    import no_such\nexcept ImportError:\n    import no_such", "always"),
        ("try:\n    import json\nexcept ImportError:\n    import no_such", None),
        ("try:\n    import no_such\nexcept ImportError:\n    no_such = None", None),
        ("try:\n    import no_such\nexcept:\n    no_such = None", None),
        ("with suppress(ImportError):\n    import no_such", None),
        ("if TYPE_CHECKING:\n    import no_such", None),
        ("if sys.version_info >= (3, 11):\n    import tomllib\nelse:\n    import no_such", None),
        ("if find_spec('no_such'):\n    import no_such", None),
    ],
)
def test_how_sure_a_failure_is(tmp_path, text, sure):
    write(tmp_path, train=text)
    found = [problem["sure"] for problem in scan(tmp_path)["problems"]]
    assert found == ([sure] if sure else [])


def test_what_only_a_program_of_its_own_would_run_is_not_followed(tmp_path):
    write(tmp_path, train="import tool", tool="if __name__ == '__main__':\n    import no_such")
    assert said(scan(tmp_path)) == []
    assert said(scan(tmp_path, module="tool")) == [("module", "tool.py", 2, "no_such")]


def test_names_that_only_running_would_show_are_not_missed(tmp_path):
    write(
        tmp_path, train="from dynamic import anything\nfrom stars import load\nfrom lazy import x",
        dynamic="globals()['anything'] = 1", stars="from helper import *",
        helper="def load(): pass", lazy="def __getattr__(name): return 1",
    )  # fmt: skip
    assert said(scan(tmp_path)) == []


def test_a_package_is_run_by_its_main_and_relative_imports_work(tmp_path):
    write(tmp_path, {
        "app/__init__": "", "app/__main__": "from .model import build\nfrom . import no\n",
        "app/model": "from .. import far\nbuild = 1\n",
    })  # fmt: skip
    assert said(scan(tmp_path, module="app")) == [
        ("name", "__main__.py", 2, "app.no"), ("relative", "model.py", 1, ".."),
    ]  # fmt: skip


def test_a_file_that_stands_in_for_pythons_own_is_named(tmp_path):
    write(tmp_path, train="import logging", logging="def info(text): pass")
    assert ("shadow", "logging.py", 0, "logging") in said(scan(tmp_path))
    write(tmp_path, json="raise SystemExit('run')")
    assert scan(tmp_path)["files"]  # the scan itself got the true one


def test_functions_of_the_users_own_are_looked_for(tmp_path):
    write(tmp_path, mine="def build(): pass")
    functions = {"model.factory": "mine:build", "data.factory": "mine:bild"}
    (problem,) = scan(tmp_path, functions=functions, from_cwd=True)["problems"]
    assert (problem["file"], problem["name"], problem["near"]) == (
        "data.factory", "mine.bild", "build",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["scan_imports", "scan_modules", "scan_statements", "try_imports"])
def test_what_runs_under_a_programs_own_python_is_for_old_ones_too(name):
    path = Path(scan_imports.__file__).with_name(f"{name}.py")
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    froms = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    ours = {"scan_modules", "scan_statements"}
    assert names | froms <= {
        *sys.stdlib_module_names, *ours, "hpctrain.preflight", "hpctrain.preflight.scan_statements",
    }  # fmt: skip


# -- which program --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "flags", "request_"),
    [
        (["train.py", "-m", "x"], (), {"script": "train.py"}),
        (["-m", "pkg", "train.py"], (), {"module": "pkg"}),
        (["-mpkg"], (), {"module": "pkg"}),
        (["-Ou", "-W", "error", "-c", "import x"], ("-O", "-W", "error"), {"code": "import x"}),
        (["-Wignore", "-I", "train.py"], ("-W", "ignore", "-I"), {"script": "train.py"}),
        (["--check-hash-based-pycs", "-E", "t.py"], ("--check-hash-based-pycs", "-E"),
         {"script": "t.py"}),
        (["-"], (), {}),
        ([], (), {}),
    ],
)  # fmt: skip
def test_pythons_own_words(words, flags, request_):
    assert parse_python_words(words) == (flags, request_)


def test_a_program_with_a_shebang_is_python_too(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text(f"#!{sys.executable} -s\nimport os\n")
    tool.chmod(0o755)
    program = find_python_program([str(tool), "--lr", "1"], {})
    assert program == PythonProgram(sys.executable, ("-s",), {"script": str(tool)}, str(tool))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["bash", "-c", "python x.py"], "no Python program"),
        (["/no/such/program"], "no program on PATH"),
        ([sys.executable, "-"], "standard input"),
    ],
)
def test_what_cannot_be_seen_is_said(words, why):
    assert why in find_python_program(words, {"PATH": "/usr/bin:/bin"})


# -- importing packages ---------------------------------------------------------------------------

CRASH = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "site-packages"
    write(
        folder,
        good="value = 1",
        broken="raise OSError('libcuda.so.1: cannot open')",
        crashing=CRASH,
        leaving="raise SystemExit(3)",
        noisy="print('hpctrain'); value = 2",
    )
    return folder


def test_one_package_that_crashes_costs_its_own_answer(packages):
    program = PythonProgram(sys.executable, (), {}, "x")
    path = [str(packages), *sys.path]
    wanted = [("crashing", []), ("good", ["", "value", "valu"]), ("broken", []), ("leaving", []),
              ("noisy", ["value"]), ("no_such", [])]  # fmt: skip
    broken = try_packages(program, path, wanted, LocalExecutor(), time.monotonic() + 60)
    assert broken == {
        "crashing": {"": "importing it ends the process by signal 9"},
        "good": {"valu": "cannot import name 'valu' from 'good'. Did you mean 'value'?"},
        "broken": {"": "OSError: libcuda.so.1: cannot open"},
        "leaving": {"": "SystemExit: 3"},
        "no_such": {"": "ModuleNotFoundError: No module named 'no_such'"},
    }


def test_what_time_does_not_reach_is_no_pass():
    program = PythonProgram(sys.executable, (), {}, "x")
    broken = try_packages(program, [], [("json", [])], LocalExecutor(), time.monotonic() - 1)
    assert broken == {"json": {"": "was not reached in time"}}


def test_trials_are_read_between_other_words():
    text = f'noise\n{try_imports.BEGIN}a\nhello\n{try_imports.END}["a", {{}}]\n{try_imports.BEGIN}b'
    assert read_trials(text) == ({"a": {}}, "b")


def test_a_programs_own_packages_are_really_imported(tmp_path, packages, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path,
        train="import good\nimport own\nfrom good import val\n",
        own="import broken\nfrom good import value",
    )
    program = PythonProgram(sys.executable, (), {"script": "train.py"}, "train.py")
    value = scan_and_try(program, LocalExecutor(), time.monotonic() + 60)
    assert value["packages"] == ["broken", "good"]
    assert sorted(value["files"]) == ["own.py", "train.py"]
    assert [describe(p) for p in value["problems"]] == [
        "train.py:3: cannot import name 'val' from 'good'. Did you mean 'value'?",
        "own.py:1: import broken: OSError: libcuda.so.1: cannot open",
    ]


# -- judging --------------------------------------------------------------------------------------


def fleet(**values):
    answers = {host: Answer(value) for host, value in values.items()}
    return Fleet(tasks={h: NodeTask(host=h) for h in values}, answers={"imports": answers})


def answer(problems=(), **files):
    return {"name": "train.py", "problems": list(problems), "packages": ["torch"], "files": files}


def problem(kind="module", sure="always", name="yaml", near=""):
    return {"file": "train.py", "line": 3, "kind": kind, "name": name, "sure": sure,
            "detail": "why", "near": near}  # fmt: skip


def test_judging_imports():
    verdicts = list(IMPORTS.judge(fleet(
        n1=answer(a="1"), n2=answer([problem()]), n3=answer([problem(sure="maybe")]),
        n4={"skipped": "bash is no Python program"}, n5=answer([problem("shadow", "maybe")], a="1"),
    )))  # fmt: skip
    assert [(v.status, *v.hosts) for v in verdicts] == [
        (PASS, "n1"), (FAIL, "n2"), (WARN, "n3"), (SKIP, "n4"), (WARN, "n5"), (PASS, "n5"),
    ]  # fmt: skip
    assert verdicts[1].found == "train.py:3: No module named 'yaml'."
    assert verdicts[1].fix == "pip install PyYAML there"
    assert "only if this code runs" in verdicts[2].found


def test_judging_the_script_itself():
    same = list(SAME_SCRIPT.judge(fleet(n1=answer(a="1"), n2=answer(a="1"))))
    assert [(v.status, v.hosts) for v in same] == [(PASS, ("n1", "n2"))]
    differ = fleet(n1=answer(a="1"), n2=answer(a="1"), n3=answer(a="2", b="3"))
    (verdict,) = SAME_SCRIPT.judge(differ)
    assert (verdict.status, verdict.hosts) == (FAIL, ("n3",))
    assert "a, b" in verdict.found
    assert [v.status for v in SAME_SCRIPT.judge(fleet(n1={"skipped": "x"}))] == [SKIP]


def test_hpctrains_own_trainer_has_nothing_to_look_at():
    config = {"model": {"factory": None}, "data": {"factory": None}}
    assert "trainer" in look_at_imports(NodeTask(host="n1", config=config))["skipped"]
