"""Which imports of a program would fail? It is parsed, never run.

Runs as a script under the program's own Python, with the program's own search path, so it uses
nothing but Python's library, and what Python 3.8 has. Reads a request as JSON from stdin and prints
the answer as JSON behind :data:`MARK`.

What it follows: the program's file, and every module that is neither Python's own nor installed.
Installed packages are listed for try_imports.py, which really imports them.
"""

import sys

# Until all is imported: a folder of the program's must not stand in for Python's own library here.
_OWN_PATH = list(sys.path)
if not __package__:
    sys.path[:] = [p for p in _OWN_PATH if p.startswith((sys.prefix, sys.base_prefix))]

import ast  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402

_FOLDER = os.path.dirname(os.path.abspath(__file__))
if __package__:
    from hpctrain.preflight import scan_modules as modules
    from hpctrain.preflight.scan_statements import ALWAYS, CAUGHT, MAYBE, Reader
else:
    sys.path.insert(0, _FOLDER)
    import scan_modules as modules
    from scan_statements import ALWAYS, CAUGHT, MAYBE, Reader
sys.path[:] = _OWN_PATH

MARK = "hpctrain-imports:"
MAX_FILES = 2000
OURS = "hpctrain"  # what asks is there; and its own modules import what they need when they do


class Scan:
    """One program's imports, followed from file to file."""

    def __init__(self, main=""):
        self.main = main  # the module that runs as the program
        self.problems = []
        # Installed module → what is taken from it ('' for itself) → file, line, how sure.
        self.packages = {}
        self.files = {}  # file of the program → digest
        self._names = {}
        self._waiting = []

    def enter_file(self, path, module="__main__", package=""):
        """Follow a file; `package` is what its relative imports start from."""
        if path in self.files or len(self.files) >= MAX_FILES:
            return
        try:
            with open(path, "rb") as stream:
                content = stream.read()
        except OSError as wrong:
            self.report(path, 0, "file", path, ALWAYS, wrong.strerror or str(wrong))
            return
        self.files[path] = hashlib.sha256(content).hexdigest()[:16]
        self.enter_code(content, path, module, package)

    def enter_code(self, content, path="-c", module="__main__", package=""):
        """Follow a text of Python."""
        try:
            tree = ast.parse(content, path)
        except (SyntaxError, ValueError) as wrong:
            line = getattr(wrong, "lineno", 0) or 0
            self.report(path, line, "syntax", path, ALWAYS, getattr(wrong, "msg", str(wrong)))
            return
        is_main = module in ("__main__", self.main)
        self._waiting.append((Reader(self, path, is_main, package), tree.body))

    def follow(self):
        """Read what waits to be read, and what that imports."""
        while self._waiting:
            reader, body = self._waiting.pop(0)
            reader.read(body, ALWAYS)

    def report(self, path, line, kind, name, sure, detail="", near=""):
        problem = {"file": path, "line": line, "kind": kind, "name": name, "sure": sure,
                   "detail": detail, "near": near}  # fmt: skip
        if problem not in self.problems:
            self.problems.append(problem)

    def take_module(self, name, path, line, sure, names=()):
        """Note that a module is imported; return whether it can be found."""
        top = name.partition(".")[0]
        if top == OURS:
            return True
        spec = modules.find_spec(top)
        if spec is None:
            if sure != CAUGHT:
                nearest = modules.near(top, modules.modules_in(None))
                self.report(path, line, "module", name, sure, near=nearest)
            return False
        kind = modules.kind_of(spec)
        if kind == modules.INSTALLED and sure != CAUGHT:
            taken = self.packages.setdefault(name, {})
            for each in ("", *(n for n in names if n != "*")):
                if each not in taken or sure == ALWAYS != taken[each][2]:
                    taken[each] = [path, line, sure]
        if kind == modules.LOCAL:
            if top in modules.stdlib_names():
                self.report(spec.origin or top, 0, "shadow", top, MAYBE)
            return self._take_own(name, path, line, sure, names)
        return True

    def _take_own(self, name, path, line, sure, names):
        """Follow the program's own module `name`: each package above it runs as well."""
        parts, places = name.split("."), None
        for depth, part in enumerate(parts):
            full = ".".join(parts[: depth + 1])
            spec = modules.find_spec(full, places)
            if spec is None:
                if sure != CAUGHT:
                    nearest = modules.near(part, modules.modules_in(places))
                    self.report(path, line, "module", full, sure, near=nearest)
                return False
            self._enter_spec(spec)
            places = spec.submodule_search_locations or []  # in a module that is no package: none
        return all([self._take_name(spec, each, path, line, sure) for each in names])

    def _enter_spec(self, spec):
        if modules.is_source(spec):
            package = spec.name if spec.submodule_search_locations is not None else spec.parent
            self.enter_file(spec.origin, spec.name, package)

    def _take_name(self, spec, name, path, line, sure):
        """Look for what ``from module import name`` takes: a name it binds, or a submodule."""
        places = spec.submodule_search_locations
        below = modules.find_spec(spec.name + "." + name, places) if places else None
        if below is not None:
            self._enter_spec(below)
            return True
        if name == "*" or not modules.is_source(spec):
            return name == "*" or spec.origin is not None
        if spec.origin not in self._names:
            self._names[spec.origin] = modules.names_of_file(spec.origin)
        defined, dynamic = self._names[spec.origin]
        if name in defined or dynamic:
            return True
        if sure != CAUGHT:
            nearest = modules.near(
                name, defined | (modules.modules_in(places) if places else set())
            )
            self.report(path, line, "name", spec.name + "." + name, sure, near=nearest)
        return False


def set_search_path(request):
    """Search where the program would: its folder, or the working directory, comes first."""
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != _FOLDER]
    script = request.get("script")
    if request.get("from_cwd") or not (getattr(sys.flags, "safe_path", 0) or sys.flags.isolated):
        sys.path.insert(0, os.path.dirname(os.path.realpath(script)) if script else os.getcwd())


def scan_program(request):
    """Return what is found: problems, installed modules, files, and the search path.

    Args:
        request: "script", "module" or "code", as Python is given them; or "functions": setting →
            ``module:function``; "from_cwd": the working directory is searched in any case.
    """
    set_search_path(request)
    module = request.get("module", "")
    top = modules.find_spec(module.partition(".")[0]) if module else None
    if top is not None and modules.kind_of(top) == modules.INSTALLED:
        module = module.partition(".")[0]  # to import the rest could be to run it
    elif top is not None and "." not in module and top.submodule_search_locations is not None:
        module += ".__main__"
    scan = Scan(main=module)
    if request.get("script"):
        scan.enter_file(os.path.realpath(request["script"]))
    if request.get("code"):
        scan.enter_code(request["code"])
    if module:
        scan.take_module(module, "-m", 0, ALWAYS)
    for setting, place in request.get("functions", {}).items():
        name, _, function = place.partition(":")
        scan.take_module(name, setting, 0, ALWAYS, [function] if function else [])
    scan.follow()
    return {
        "problems": scan.problems, "packages": scan.packages, "files": scan.files,
        "path": sys.path,
    }  # fmt: skip


if __name__ == "__main__":
    print("\n" + MARK + json.dumps(scan_program(json.load(sys.stdin))), flush=True)
