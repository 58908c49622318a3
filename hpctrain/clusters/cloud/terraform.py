"""python-terraform 0.10.1 made to work with today's Terraform, and to start nothing by itself.

What is kept of it: its words for commands, options and flags (`generate_cmd_string`), and that a
command answers ``(return code, stdout, stderr)``. Its one place that starts a process, `cmd`, goes
through the executor here, because its own

- shares our terminal's process group, so that Ctrl-C reaches Terraform at the same time as us,
  and a second one kills it before its state is written;
- gives the output at the end alone;
- takes no variables for the environment.

Of its calls these work with Terraform 1.x as they stand: `plan`, `output_cmd`; the others need
the arguments that the methods below give them.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from python_terraform import IsFlagged, IsNotFlagged, Terraform

from hpctrain.clusters.cloud.environ import own_environ
from hpctrain.clusters.cloud.events import Message, error_messages, parse_message
from hpctrain.errors import ClusterError
from hpctrain.executor import Command, LocalExecutor

QUICK_TIMEOUT_S = 120.0
INIT_TIMEOUT_S = 900.0  # a provider is 100 MB and more
POLL_S = 0.05
STATE_LOCK_TIMEOUT = "10s"

OnMessage = Callable[[Message], None]


class TerraformAdapter(Terraform):
    """Terraform in one folder.

    Args:
        folder: where main.tf.json is.
        environ: variables for Terraform on top of ours, e.g. TF_CLI_CONFIG_FILE.
        on_interrupt: told of each Ctrl-C while Terraform changes something; the argument is how
            many there were.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str] | None = None,
        on_interrupt: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.folder = folder
        self.environ = own_environ(environ or {})
        self.on_interrupt = on_interrupt
        self.on_message: OnMessage = lambda message: None
        self.interrupts = 0
        super().__init__(working_dir=str(folder))

    def read_state_file(self, file_path: str | None = None) -> None:
        """Leave the state alone: the library's reader knows no state of today's Terraform."""

    def prepare(self) -> None:
        """Initialize the folder: providers, modules, backend.

        Raises:
            ClusterError: with Terraform's own words.
        """
        code, out, err = self.init(var=None, target=None, timeout_s=INIT_TIMEOUT_S)
        if code:
            raise ClusterError(f"terraform init: {plain_words(err or out)}")

    def plan_into(self, file: str, on_message: OnMessage, *, lock: bool = True) -> bool:
        """Write a plan; return whether it changes anything.

        Args:
            lock: False leaves the state's folder alone, which need not be there yet.

        Raises:
            ClusterError: with every error that Terraform reports.
        """
        code, messages, err = self._watched(
            on_message, lambda: self.plan(out=file, var=None, json=IsFlagged, lock=lock)
        )
        if code not in (0, 2):
            raise ClusterError(*failure("terraform plan", code, messages, err))
        return code == 2

    def carry_out(self, file: str, on_message: OnMessage) -> list[str]:
        """Apply a plan to its end; return what went wrong, [] for nothing."""
        code, messages, err = self._watched(
            on_message,
            lambda: self.apply(
                file, var=None, target=None, skip_plan=True, json=IsFlagged,
                lock_timeout=STATE_LOCK_TIMEOUT,
            ),
        )  # fmt: skip
        return [] if code == 0 else failure("terraform apply", code, messages, err)

    def tear_down(self, on_message: OnMessage) -> list[str]:
        """Destroy everything in the state; return what went wrong, [] for nothing."""
        code, messages, err = self._watched(
            on_message,
            # -force is gone since Terraform 0.15; the library still gives it by default.
            lambda: self.destroy(
                force=IsNotFlagged, auto_approve=IsFlagged, var=None, json=IsFlagged,
                lock_timeout=STATE_LOCK_TIMEOUT,
            ),
        )  # fmt: skip
        return [] if code == 0 else failure("terraform destroy", code, messages, err)

    def read_outputs(self) -> dict[str, Any]:
        """Return the root module's outputs; {} before the first apply.

        Raises:
            ClusterError: Terraform cannot read them.
        """
        code, out, err = self.output_cmd(json=IsFlagged, no_color=IsFlagged)
        if code:
            raise ClusterError(f"terraform output: {plain_words(err)}")
        return {name: value["value"] for name, value in json.loads(out).items()}

    def list_state(self) -> list[str]:
        """Return the addresses of everything in the state, without what was only looked up.

        Raises:
            ClusterError: Terraform cannot read it.
        """
        code, out, err = self.cmd("state list")
        if code and "No state file was found" not in err:
            raise ClusterError(f"terraform state list: {plain_words(err)}")
        lines = out.splitlines() if code == 0 else []
        return [line for line in lines if ".data." not in f".{line}" and line.strip()]

    def cmd(self, cmd: str, *args: str, **kwargs: Any) -> tuple[int, str, str]:
        """Run a command of Terraform through the executor, as every method of the library does."""
        for name in ("capture_output", "raise_on_error", "synchronous"):
            kwargs.pop(name, None)
        timeout_s = kwargs.pop("timeout_s", QUICK_TIMEOUT_S)
        program, *words = self.generate_cmd_string(cmd, *args, **kwargs)
        command = Command((program, f"-chdir={self.folder}", *words), self.environ)
        if cmd in ("plan", "apply", "destroy"):
            return self._stream(command, cmd)
        done = LocalExecutor().run(command, timeout_s=timeout_s)
        return done.returncode, done.stdout, done.stderr

    def _watched(
        self, on_message: OnMessage, call: Callable[[], tuple[int, str, str]]
    ) -> tuple[int, list[Message], str]:
        messages: list[Message] = []

        def keep(message: Message) -> None:
            messages.append(message)
            on_message(message)

        self.on_message = keep
        code, _, err = call()
        return code, messages, err

    def _stream(self, command: Command, name: str) -> tuple[int, str, str]:
        """Run Terraform and hand on its messages while they come.

        They go through a file, not a pipe: should we be killed, Terraform goes on to the end and
        writes its state, where a broken pipe would end it in the middle.
        """
        log = self.folder / f"{name}.jsonl"
        errors = self.folder / f"{name}.stderr"
        with log.open("wb") as out, errors.open("wb") as err:
            process = LocalExecutor().start(command, stdout=out.fileno(), stderr=err.fileno())
        with self._interrupts_passed_on(process), log.open("rb") as lines:
            while True:
                ended = process.poll() is not None  # before the last look at the file
                for line in whole_lines(lines):
                    self.on_message(parse_message(line))
                if ended:
                    break
                time.sleep(POLL_S)
        return process.returncode, "", errors.read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def _interrupts_passed_on(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Pass the first Ctrl-C or SIGTERM on, as one SIGINT.

        Terraform then finishes what it is doing and writes its state. It takes a second SIGINT
        for "at once", so it gets none.
        """
        self.interrupts = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def pass_on(number: int, frame: object) -> None:
            self.interrupts += 1
            if self.interrupts == 1:
                process.send_signal(signal.SIGINT)
            self.on_interrupt(self.interrupts)

        before = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let nobody interrupt the saying of what was left by an interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def failure(what: str, code: int, messages: Sequence[Message], stderr: str) -> list[str]:
    """Return what Terraform says went wrong, or at least that it did."""
    said = error_messages(messages) or ([plain_words(stderr)] if stderr.strip() else [])
    return said or [f"{what}: ended with exit code {code} and said nothing"]


def plain_words(text: str) -> str:
    """Return Terraform's boxed, coloured error text as plain lines.

    >>> plain_words("\\x1b[31m╷\\x1b[0m\\n│ Error: no\\n│ \\n│ why\\n╵")
    'Error: no why'
    """
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    return " ".join(" ".join(line.strip("│╷╵ ") for line in lines).split())


def whole_lines(file: Any) -> Iterator[str]:
    """Yield the lines that are complete; what comes of the last one later is read later."""
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        yield line.decode("utf-8", errors="replace")
