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
sys.path[:] = [p for p in _OWN_PATH if p.startswith((sys.prefix, sys.base_prefix))]

import ast  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402

_FOLDER = os.path.dirname(os.path.abspath(__file__))
if __package__:
    from hpctrain.preflight import scan_modules as modules
else:
    sys.path.insert(0, _FOLDER)
    import scan_modules as modules
sys.path[:] = _OWN_PATH

MARK = "hpctrain-imports:"
# How sure it is that an import happens: always, only if some code runs, or failing is caught.
ALWAYS, MAYBE, CAUGHT = "always", "maybe", "caught"
MAX_FILES = 2000
OURS = "hpctrain"  # what asks is there; and its own modules import what they need when they do
_CATCHING = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
# Names in a condition that says whether something is there: its branches miss nothing.
_ASKS_FIRST = {"version_info", "hexversion", "platform", "system", "find_spec"}


class Scan:
    """One program's imports, followed from file to file."""

    def __init__(self, main=""):
        self.main = main  # the module that runs as the program
        self.problems = []
        self.packages = {}  # installed module → [names taken from it, file, line, how sure]
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
        self._waiting.append((_Reader(self, path, is_main, package), tree.body))

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
            entry = self.packages.setdefault(name, [[], path, line, sure])
            entry[0] += [n for n in names if n not in entry[0] and n != "*"]
            entry[3] = ALWAYS if sure == ALWAYS else entry[3]
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


class _Reader:
    """Walks one file's statements and knows how sure it is that each of them runs."""

    def __init__(self, scan, path, is_main, package):
        self.scan, self.path, self.is_main, self.package = scan, path, is_main, package
        self.missing = 0

    def read(self, body, sure):
        for node in body:
            self._read_one(node, sure)

    def _read_one(self, node, sure):
        later = CAUGHT if sure == CAUGHT else MAYBE
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._take(node, sure)
        elif isinstance(node, ast.If):
            self._read_if(node, sure, later)
        elif hasattr(node, "handlers"):  # try, and try with except*
            self._read_try(node, sure)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.read(node.body, later)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            suppressed = any(_words(item.context_expr) & _CATCHING for item in node.items)
            self.read(node.body, CAUGHT if suppressed else sure)
        elif hasattr(node, "cases"):
            for case in node.cases:
                self.read(case.body, later)
        elif isinstance(node, (ast.Expr, ast.Assign, ast.Return)):
            self._read_calls(node, later)
        else:
            self.read(getattr(node, "body", ()), sure)
            self.read(getattr(node, "orelse", ()), sure)

    def _read_if(self, node, sure, later):
        words = _words(node.test)
        if "TYPE_CHECKING" in words:
            self.read(node.orelse, sure)
        elif "__name__" in words:
            self.read(node.body if self.is_main else node.orelse, sure)
        else:
            self.read([*node.body, *node.orelse], CAUGHT if words & _ASKS_FIRST else later)

    def _read_try(self, node, sure):
        catches = any(h.type is None or _words(h.type) & _CATCHING for h in node.handlers)
        before = self.missing
        self.read(node.body, CAUGHT if catches else sure)
        fails = self.missing > before
        if fails and catches:  # then a handler runs, and must not fail itself
            for handler in node.handlers:
                self.read(handler.body, sure)
        self.read(node.orelse, CAUGHT if fails else sure)
        self.read(node.finalbody, sure)

    def _read_calls(self, node, later):
        """Find import_module("x") and __import__("x") with the name written out."""
        for call in ast.walk(node):
            named = isinstance(call, ast.Call) and len(call.args) == 1 and not call.keywords
            if named and _last_word(call.func) in ("import_module", "__import__"):
                value = getattr(call.args[0], "value", None)
                if isinstance(value, str) and value and not value.startswith("."):
                    self._count(self.scan.take_module(value, self.path, call.lineno, later))

    def _take(self, node, sure):
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._count(self.scan.take_module(alias.name, self.path, node.lineno, sure))
            return
        names, module = [alias.name for alias in node.names], node.module or ""
        if node.level:
            above = self.package.split(".")
            if not self.package or node.level > len(above):
                written = "." * node.level + module
                self.scan.report(self.path, node.lineno, "relative", written, sure)
                return
            base = ".".join(above[: len(above) - node.level + 1])
            module = base + "." + module if module else base
        self._count(self.scan.take_module(module, self.path, node.lineno, sure, names))

    def _count(self, found):
        self.missing += not found


def _words(node):
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def _last_word(node):
    return getattr(node, "attr", getattr(node, "id", ""))


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
