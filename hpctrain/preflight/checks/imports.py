"""Would the program's imports work on every host? And is it the same program there?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.look_at_imports import TIMEOUT_S, look_at_imports
from hpctrain.preflight.show import name_hosts
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE, SCRIPT_CODE = "imports", "same-script"
SHOWN_PACKAGES, SHOWN_FILES = 8, 3
# Packages whose name is another than that of their module.
_DISTRIBUTIONS = {
    "apex": "", "attr": "attrs", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil", "deepspeed": "deepspeed", "docx": "python-docx",
    "flash_attn": "flash-attn", "git": "GitPython", "google": "protobuf", "faiss": "faiss-cpu",
    "horovod": "", "hydra": "hydra-core", "jwt": "PyJWT", "PIL": "pillow", "pkg_resources":
    "setuptools", "pytorch_lightning": "pytorch-lightning", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "PyYAML", "zmq": "pyzmq",
}  # fmt: skip

IMPORTS_PROBE = Probe(CODE, look_at_imports, TIMEOUT_S)


def judge_imports(fleet: Fleet) -> Iterator[Verdict]:
    """Name each import that would fail, by file and line; a likely one only warns."""
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
        elif "skipped" in answer.value:
            yield Verdict(CODE, SKIP, answer.value["skipped"], hosts=(host,))
        else:
            yield from _judge_program(host, answer.value)


def _judge_program(host: str, value: Mapping[str, Any]) -> Iterator[Verdict]:
    for problem in value["problems"]:
        status = FAIL if problem["sure"] == "always" else WARN
        yield Verdict(CODE, status, describe(problem), _fix(problem), "", (host,))
    if any(problem["kind"] != "shadow" for problem in value["problems"]):
        return
    packages, files = value["packages"], len(value["files"])
    shown = ", ".join(packages[:SHOWN_PACKAGES])
    shown += f" and {len(packages) - SHOWN_PACKAGES} more" if len(packages) > SHOWN_PACKAGES else ""
    own = f"{files} file{'' if files == 1 else 's'} of its own parsed"
    found = f"{value['name']}: {own}, not run; imported: {shown or 'no installed package'}"
    yield Verdict(CODE, PASS, found, hosts=(host,))


def describe(problem: Mapping[str, Any]) -> str:
    """Return a problem as Python would word it, behind its file and line."""
    line = f":{problem['line']}" if problem["line"] else ""
    where, name, detail = f"{problem['file']}{line}", problem["name"], problem["detail"]
    near = f" Did you mean '{problem['near']}'?" if problem["near"] else ""
    module, _, last = name.rpartition(".")
    said = {
        "file": f"cannot be read: {detail}",
        "syntax": f"is no Python: {detail}",
        "module": f"No module named '{name}'.{near}",
        "name": f"cannot import name '{last}' from '{module}'.{near}",
        "relative": f"'{name}' is relative, and the file belongs to no package",
        "package": f"import {name}: {detail}",
        "taken": detail,
        "shadow": f"stands in for Python's own module '{name}'",
    }[problem["kind"]]
    maybe = problem["sure"] == "maybe" and problem["kind"] != "shadow"
    return f"{where}: {said}" + (" (only if this code runs)" if maybe else "")


def _fix(problem: Mapping[str, Any]) -> str:
    top = problem["name"].partition(".")[0]
    if problem["kind"] == "module" and "." not in problem["name"] and not problem["near"]:
        distribution = _DISTRIBUTIONS.get(top, top)
        if top == "horovod":
            return "hpctrain install-horovod"
        return f"pip install {distribution} there" if distribution else f"see {top}'s own page"
    return {
        "file": "bring it there: hpctrain run --sync",
        "module": "correct the name, add its folder to PYTHONPATH, or: hpctrain run --sync",
        "package": f"python -c 'import {problem['name']}' there; then reinstall {top}",
        "taken": f"correct the line, or install the version of {top} that has it",
        "relative": "run it by python -m PACKAGE.MODULE, or import by the whole name",
        "shadow": "give the file another name",
    }.get(problem["kind"], "correct the line")


def judge_same_script(fleet: Fleet) -> Iterator[Verdict]:
    """Compare the program's own files on all hosts."""
    files: dict[str, Mapping[str, str]] = {}
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(SCRIPT_CODE, host, answer.error)
        elif answer.value.get("files"):
            files[host] = answer.value["files"]
    groups = differing({host: tuple(sorted(each.items())) for host, each in files.items()})
    if not groups:
        yield Verdict(SCRIPT_CODE, SKIP, "no file of the program's own is known")
        return
    usual, *others = groups
    if not others:
        count = len(usual)
        found = f"{count} file{'' if count == 1 else 's'} of the program's own, the same everywhere"
        yield Verdict(SCRIPT_CODE, PASS, found, hosts=tuple(groups[usual]))
    for other in others:
        mine, theirs = dict(other), dict(usual)
        differ = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
        more = f" and {len(differ) - SHOWN_FILES} more" if len(differ) > SHOWN_FILES else ""
        found = f"another program: {', '.join(differ[:SHOWN_FILES])}{more}"
        expected = f"the same as on {name_hosts(groups[usual], len(fleet.hosts))}"
        fix = "hpctrain run --sync, or git pull there"
        yield Verdict(SCRIPT_CODE, FAIL, found, fix, expected, tuple(groups[other]))


IMPORTS = Check(CODE, judge_imports, (IMPORTS_PROBE,))
SAME_SCRIPT = Check(SCRIPT_CODE, judge_same_script, (IMPORTS_PROBE,), needs_hosts=True)
