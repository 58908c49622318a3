"""Which statements of a file import something, and how sure is it that they run?

Runs under the Python of the program that is looked at, with scan_imports.py: so it uses nothing
but Python's library, and what Python 3.8 has.
"""

import ast

# How sure it is that an import happens: always, only if some code runs, or failing is caught.
ALWAYS, MAYBE, CAUGHT = "always", "maybe", "caught"
_CATCHING = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
# Names in a condition that says whether something is there: its branches miss nothing.
_ASKS_FIRST = {"version_info", "hexversion", "platform", "system", "find_spec"}


class Reader:
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
