"""Import installed packages, one after the other, and say of each how that went.

Runs as a script under the program's own Python. Reads a request as JSON from stdin: "modules", a
list of [module, names taken from it]; "path", where to search. Prints a line before and a line
after each, so that whoever reads knows which one took the process down.
"""

import difflib
import importlib
import json
import sys

BEGIN, END = "hpctrain-begins:", "hpctrain-ends:"


def try_module(name, names):
    """Import a module and what is taken from it; return what went wrong: name → message.

    The empty name stands for the module itself.
    """
    try:
        if name.partition(".")[0] == "mpi4py":
            # To import MPI would be to start it, without anybody to start it with.
            rc = importlib.import_module("mpi4py").rc
            rc.initialize = rc.finalize = False
        module = importlib.import_module(name)
    except BaseException as problem:  # whatever it raises, SystemExit too, is the answer
        return {"": in_words(problem)}
    wrong = {}
    for each in names:
        try:
            if each and not hasattr(module, each):
                importlib.import_module(name + "." + each)
        except ModuleNotFoundError:
            close = difflib.get_close_matches(each, dir(module), n=1, cutoff=0.75)
            near = f" Did you mean '{close[0]}'?" if close else ""
            wrong[each] = f"cannot import name '{each}' from '{name}'.{near}"
        except BaseException as problem:
            wrong[each] = in_words(problem)
    return wrong


def in_words(problem):
    """Return an exception in one line."""
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0] if lines else 'no message'}"


def main():
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    for name, names in request["modules"]:
        print("\n" + BEGIN + name, flush=True)
        print("\n" + END + json.dumps([name, try_module(name, names)]), flush=True)


if __name__ == "__main__":
    main()
