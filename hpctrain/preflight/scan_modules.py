"""Where would a module come from, and which names would it have? Nothing is imported to find out.

Runs under the Python of the program that is looked at, with scan_imports.py: so it uses nothing
but Python's library, and what Python 3.8 has.
"""

import ast
import difflib
import os
import pkgutil
import sys
import sysconfig

_STDLIB = tuple(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_INSTALLED = ("site-packages", "dist-packages")
PYTHONS_OWN, INSTALLED, LOCAL = "python", "installed", "local"
_MAY_BIND = ("globals", "vars", "exec", "setattr")


def find_spec(name, places=None):
    """Return a module's spec without importing anything, not even the packages above it.

    Args:
        places: where the package above it keeps its modules; None for a top-level module.
    """
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, places)
        except (AttributeError, ImportError, ValueError):
            continue
        if spec is not None:
            return spec
    return None


def kind_of(spec):
    """Return whether a module is Python's own, installed, or the program's (local)."""
    if spec.origin in ("built-in", "frozen"):
        return PYTHONS_OWN
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    paths = [os.path.realpath(place) for place in places]
    if any(part in path.split(os.sep) for path in paths for part in _INSTALLED):
        return INSTALLED
    if any(path.startswith(folder + os.sep) for path in paths for folder in _STDLIB):
        return PYTHONS_OWN
    return LOCAL


def is_source(spec):
    """Return whether a module is a file that can be parsed."""
    return bool(spec.origin) and spec.origin.endswith(".py")


def names_of_file(path):
    """Return the names that a file binds, and whether others may come when it runs."""
    try:
        with open(path, "rb") as stream:
            return defined_names(ast.parse(stream.read(), path))
    except (OSError, SyntaxError, ValueError):
        return set(), True


def defined_names(tree):
    """Return the names that a module binds, and whether it may bind others when it runs."""
    names, dynamic, inner = set(), False, [tree]
    while inner:
        for child in ast.iter_child_nodes(inner.pop()):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(child.name)
                for deeper in ast.walk(child):
                    if isinstance(deeper, ast.Global):
                        names.update(deeper.names)
                continue
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                names.update((a.asname or a.name).partition(".")[0] for a in child.names)
            elif isinstance(child, ast.Name):
                if isinstance(child.ctx, ast.Store):
                    names.add(child.id)
                dynamic = dynamic or child.id in _MAY_BIND
            elif isinstance(child, ast.Attribute):
                dynamic = dynamic or child.attr == "modules"  # sys.modules
            inner.append(child)
    return names, dynamic or "*" in names or "__getattr__" in names


def modules_in(places):
    """Return the names of the modules in a package's folders; of all top-level ones for None."""
    found = {module.name for module in pkgutil.iter_modules(places)}
    return found if places is not None else found | set(stdlib_names())


def stdlib_names():
    """Return the names of Python's own modules, as far as this Python knows them (3.10)."""
    return getattr(sys, "stdlib_module_names", ())


def near(word, known):
    """Return the known word that is nearest, or an empty text."""
    public = [each for each in known if word.startswith("_") or not each.startswith("_")]
    close = difflib.get_close_matches(word, public, n=1, cutoff=0.75)
    return close[0] if close else ""
