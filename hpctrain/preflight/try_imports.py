"""Import installed packages, one after the other, and say of each how that went.

Runs as a script under the program's own Python. Reads a request as JSON from stdin: "modules", a
list of [module, names taken from it]; "path", where to search. Prints a line before and a line
after each, so that whoever reads knows which one took the process down.
"""

import sys

BEGIN, END = "hpctrain-begins:", "hpctrain-ends:"


def try_module(name, names):
    """Import a module and what is taken from it; return what went wrong, or an empty text."""
    import importlib

    if name.partition(".")[0] == "mpi4py":
        import mpi4py

        # To import MPI would be to start it, without anybody to start it with.
        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
    try:
        module = importlib.import_module(name)
        for each in names:
            if not hasattr(module, each):
                try:
                    importlib.import_module(name + "." + each)
                except ModuleNotFoundError:
                    return f"no '{each}' in it"
    except BaseException as problem:  # whatever it raises, SystemExit too, is the answer
        lines = str(problem).strip().splitlines()
        return f"{type(problem).__name__}: {lines[0] if lines else 'no message'}"
    return ""


def main():
    import json

    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    for name, names in request["modules"]:
        print("\n" + BEGIN + name, flush=True)
        problem = try_module(name, names)
        print("\n" + END + json.dumps([name, problem]), flush=True)


if __name__ == "__main__":
    main()
