"""The channel on real sockets, and the shim as a real process, without any MPI."""

import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.launch import server as server_module
from hpctrain.launch.channel import (
    MAX_LINE_BYTES,
    STDIO_MARK,
    ChannelError,
    LineBuffer,
    connect,
    decode_frame,
    encode_frame,
    is_proven,
    new_secret,
    prove,
)
from hpctrain.launch.server import ChannelServer

PATIENCE_S = 20.0
HELLO = {"host": "node", "pid": 1, "size": 2, "local_rank": 0}


class Launcher:
    """A ChannelServer with its event loop, and what it has heard."""

    def __init__(self, size=1, address="127.0.0.1"):
        self.selector = selectors.DefaultSelector()
        self.secret = new_secret()
        self.frames = []
        self.lost = []
        self.server = ChannelServer(
            self.selector, address, self.secret, size,
            lambda rank, frame: self.frames.append((rank, frame)), self.lost.append,
        )  # fmt: skip
        self.is_open = True

    def serve_until(self, test):
        """Handle what comes until `test` is true."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not test():
            assert time.monotonic() < deadline_s, f"still waiting; heard {self.frames[-3:]}"
            for key, _ in self.selector.select(0.05):
                current = self.selector.get_map().get(key.fd)
                if current is not None and current.data is key.data:
                    key.data()

    def connect(self, rank, secret=None):
        """Connect as a shim does."""
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(connect, self.server.address, secret or self.secret, rank, HELLO)
            self.serve_until(made.done)
        return made.result()

    def stranger(self):
        """Connect as anybody can; return the socket and the nonce of the greeting."""
        host, _, port = self.server.address.rpartition(":")
        sock = socket.create_connection((host.strip("[]"), int(port)))
        sock.setblocking(False)
        greeting = Inbox(sock)
        self.serve_until(lambda: greeting.read().endswith(b"\n"))
        return sock, decode_frame(greeting.data)["nonce"]

    def refuses(self, sock):
        """Wait until the launcher has closed a connection; return whether it heard nothing."""
        inbox = Inbox(sock)
        self.serve_until(lambda: inbox.read() == b"" and inbox.is_closed)
        sock.close()
        return self.frames == [] and self.lost == []

    def of(self, kind, rank=0):
        """Return the frames of one kind from a rank."""
        return [frame for number, frame in self.frames if (number, frame["kind"]) == (rank, kind)]

    def output(self, stream="stdout", rank=0):
        """Return what a rank has printed."""
        chunks = [frame["data"] for frame in self.of("output", rank) if frame["stream"] == stream]
        return "".join(chunks).encode("latin-1")

    def close(self):
        if self.is_open:
            self.server.close()
            self.selector.close()
        self.is_open = False


class Inbox:
    """What has come in on a socket that never blocks."""

    def __init__(self, sock):
        self.sock, self.data, self.is_closed = sock, b"", False

    def read(self):
        try:
            data = self.sock.recv(65536)
            self.is_closed |= not data
            self.data += data
        except BlockingIOError:
            pass
        except OSError:
            self.is_closed = True
        return self.data


@pytest.fixture
def launcher():
    made = Launcher(size=2)
    yield made
    made.close()


# -- frames and lines ----------------------------------------------------------------------------


@given(st.binary(), st.sampled_from(["stdout", "stderr"]))
def test_any_bytes_survive_a_frame_and_stay_on_one_line(data, stream):
    line = encode_frame("output", stream=stream, data=data.decode("latin-1"))
    assert line.index(b"\n") == len(line) - 1
    assert not line.startswith(STDIO_MARK)
    frame = decode_frame(line)
    assert frame == {"kind": "output", "stream": stream, "data": data.decode("latin-1")}
    assert frame["data"].encode("latin-1") == data


@given(st.binary())
def test_what_is_no_frame_is_one_kind_of_error(line):
    with suppress(ChannelError):
        assert isinstance(decode_frame(line)["kind"], str)


@pytest.mark.parametrize(
    "line", [b"", b"null", b"[]", b"{}", b'{"kind": 1}', b"\xff\xfe", b"1" * 9]
)
def test_a_line_that_is_no_frame(line):
    with pytest.raises(ChannelError):
        decode_frame(line)


def test_a_deeply_nested_line_is_no_frame():
    with pytest.raises(ChannelError):
        decode_frame(b"[" * 100_000)


@given(st.binary(), st.lists(st.integers(0, 200)))
def test_lines_are_the_same_wherever_the_stream_is_cut(data, cuts):
    data = data.replace(b"a", b"\n")
    lines, buffer, places = [], LineBuffer(), sorted({min(cut, len(data)) for cut in cuts})
    for begin, end in zip([0, *places], [*places, len(data)], strict=True):
        lines += buffer.feed(data[begin:end])
    rest = buffer.flush()
    assert b"".join(line + b"\n" for line in lines) + b"".join(rest) == data
    assert all(b"\n" not in line for line in [*lines, *rest])
    assert buffer.flush() == []


def test_a_line_that_never_ends_is_refused():
    buffer = LineBuffer(limit_bytes=10)
    assert buffer.feed(b"0123456789") == []
    with pytest.raises(ChannelError, match="more than 10 bytes"):
        buffer.feed(b"x")


def test_a_line_over_the_limit_is_refused_though_it_ends():
    with pytest.raises(ChannelError, match="more than 10 bytes"):
        LineBuffer(limit_bytes=10).feed(b"0123456789x\n")


def test_a_proof_is_for_one_secret_one_nonce_and_one_rank():
    proof = prove("secret", "nonce", 3)
    assert is_proven("secret", "nonce", 3, proof)
    assert not is_proven("other", "nonce", 3, proof)
    assert not is_proven("secret", "other", 3, proof)
    assert not is_proven("secret", "nonce", 4, proof)
    assert not is_proven("secret", "nonce", 3, "")
    assert new_secret() != new_secret()


# -- the server ----------------------------------------------------------------------------------


def test_a_rank_with_the_secret_is_heard(launcher):
    connection = launcher.connect(1)
    connection.sendall(encode_frame("beat", step=7))
    connection.close()
    launcher.serve_until(lambda: launcher.lost)
    assert launcher.lost == [1]
    (first, hello), (second, beat) = launcher.frames
    assert (first, second) == (1, 1)
    assert {**hello, "proof": ""} == {"kind": "hello", "rank": 1, "proof": "", **HELLO}
    assert beat == {"kind": "beat", "step": 7}
    assert launcher.server.connected_ranks == frozenset()


def test_a_rank_is_heard_over_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as problem:
        pytest.skip(f"no IPv6 loopback: {problem}")
    launcher = Launcher(address="::1")
    connection = launcher.connect(0)
    launcher.serve_until(lambda: launcher.of("hello"))
    assert launcher.server.address.startswith("[::1]:")
    connection.close()
    launcher.close()


def test_the_wrong_secret_is_refused(launcher):
    assert launcher.refuses(launcher.connect(0, secret=new_secret()))
    launcher.connect(0).close()


@pytest.mark.parametrize(
    ("proven_for", "said"), [(0, 1), (2, 2), (-1, -1), (0, "0"), (0, None), (0, 0.0), (0, [0])]
)
def test_a_rank_that_is_not_proven_or_out_of_range_is_refused(launcher, proven_for, said):
    sock, nonce = launcher.stranger()
    proof = prove(launcher.secret, nonce, proven_for)
    sock.sendall(encode_frame("hello", rank=said, proof=proof))
    assert launcher.refuses(sock)


def test_a_proof_cannot_be_used_again(launcher):
    first, nonce = launcher.stranger()
    replayed = encode_frame("hello", rank=0, proof=prove(launcher.secret, nonce, 0))
    second, other_nonce = launcher.stranger()
    assert nonce != other_nonce
    second.sendall(replayed)
    assert launcher.refuses(second)
    first.close()


def test_a_rank_is_connected_once_and_the_first_stays(launcher):
    first = launcher.connect(0)
    launcher.serve_until(lambda: launcher.of("hello"))
    second = launcher.connect(0)
    inbox = Inbox(second)
    launcher.serve_until(lambda: inbox.read() == b"" and inbox.is_closed)
    assert launcher.lost == []
    assert launcher.server.connected_ranks == {0}
    first.sendall(encode_frame("beat", step=1))
    launcher.serve_until(lambda: launcher.of("beat"))
    first.close()
    second.close()
    launcher.serve_until(lambda: launcher.lost == [0])
    launcher.connect(0).close()  # the rank is free again


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"\0\xff\n", b"[]\n", b'{"kind": "hello"}\n', b"\n",
        b'{"kind": "output", "stream": "stdout", "data": "forged"}\n',
        b'{"kind": "exit", "rank": 0, "code": 0}\n',
        pytest.param(
            b'{"kind": "hello", "rank": 0, "proof": "\xc3\xa9"}\n',
        ),
        pytest.param(
            b"[" * 100_000 + b"\n",
        ),
    ],
)  # fmt: skip
def test_garbage_is_refused_and_the_others_go_on(launcher, garbage):
    sock, _ = launcher.stranger()
    sock.sendall(garbage)
    assert launcher.refuses(sock)
    launcher.connect(1)
    launcher.serve_until(lambda: launcher.of("hello", rank=1))


def test_a_line_without_an_end_is_refused(launcher):
    sock, _ = launcher.stranger()
    sock.setblocking(True)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(_send_all, sock, b"x" * (MAX_LINE_BYTES + (1 << 20)))
        launcher.serve_until(sent.done)
    sock.setblocking(False)
    assert launcher.refuses(sock)


def _send_all(sock, data):
    with suppress(OSError):  # refused before all of it was sent
        sock.sendall(data)


def test_silence_is_ended_and_a_proven_rank_may_be_silent(monkeypatch, launcher):
    monkeypatch.setattr(server_module, "HANDSHAKE_TIMEOUT_S", -1.0)
    rank = launcher.connect(0)
    launcher.serve_until(lambda: launcher.of("hello"))
    silent, _ = launcher.stranger()
    launcher.server.drop_unproven()
    inbox = Inbox(silent)
    launcher.serve_until(lambda: inbox.read() == b"" and inbox.is_closed)
    assert launcher.lost == []
    assert launcher.server.connected_ranks == {0}
    rank.close()
    silent.close()


def test_a_stranger_gets_the_time_to_prove_itself(launcher):
    sock, nonce = launcher.stranger()
    launcher.server.drop_unproven()
    sock.sendall(encode_frame("hello", rank=0, proof=prove(launcher.secret, nonce, 0)))
    launcher.serve_until(lambda: launcher.of("hello"))
    sock.close()


def test_a_stranger_that_leaves_is_no_lost_rank(launcher):
    sock, _ = launcher.stranger()
    sock.close()
    launcher.connect(0).close()
    launcher.serve_until(lambda: launcher.lost)
    assert launcher.lost == [0]


def test_many_ranks_at_once():
    size = 120
    launcher = Launcher(size)

    def be_a_rank(rank):
        connection = connect(launcher.server.address, launcher.secret, rank, HELLO)
        connection.setblocking(True)
        connection.sendall(encode_frame("output", stream="stdout", data=f"{rank} " * 1000))
        connection.close()

    with ThreadPoolExecutor(32) as pool:
        done = [pool.submit(be_a_rank, rank) for rank in range(size)]
        launcher.serve_until(lambda: len(launcher.lost) == size)
        for future in done:
            future.result()
    assert sorted(launcher.lost) == list(range(size))
    outputs = {rank: launcher.output(rank=rank) for rank in range(size)}
    assert outputs == {rank: f"{rank} ".encode() * 1000 for rank in range(size)}
    launcher.close()


def test_signals_reach_proven_ranks_alone(launcher):
    rank = launcher.connect(0)
    launcher.serve_until(lambda: launcher.of("hello"))
    stranger, _ = launcher.stranger()
    launcher.server.send_signal(signal.SIGTERM)
    launcher.server.send_signal(signal.SIGKILL)
    inbox, nothing = Inbox(rank), Inbox(stranger)
    launcher.serve_until(lambda: inbox.read().count(b"\n") == 2)
    frames = [decode_frame(line) for line in inbox.data.splitlines()]
    assert frames == [{"kind": "signal", "number": n} for n in (signal.SIGTERM, signal.SIGKILL)]
    assert nothing.read() == b""
    rank.close()
    stranger.close()


def test_closing_tells_the_ranks_and_nobody_else(launcher):
    rank = launcher.connect(0)
    launcher.serve_until(lambda: launcher.of("hello"))
    launcher.close()
    rank.setblocking(True)
    assert rank.recv(100) == b""
    assert launcher.lost == []
    rank.close()


# -- a shim's end of the connection --------------------------------------------------------------


def meet(greeting):
    """Let `connect` meet a listener that sends `greeting`; return what connect made and sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        made = pool.submit(connect, address, "the secret", 5, HELLO)
        peer, _ = listener.accept()
        with peer:
            if greeting:
                peer.sendall(greeting)
            else:
                peer.shutdown(socket.SHUT_WR)
            with made.result():
                return peer.recv(65536)


def test_no_secret_is_sent():
    sent = [meet(encode_frame("nonce", nonce=nonce)) for nonce in ("first", "second")]
    frames = [decode_frame(line) for line in sent]
    assert [frame.pop("proof") for frame in frames] == [
        prove("the secret", "first", 5), prove("the secret", "second", 5),
    ]  # fmt: skip
    assert frames == [{"kind": "hello", "rank": 5, **HELLO}] * 2
    assert b"the secret" not in b"".join(sent)


@pytest.mark.parametrize(
    "greeting", [b"", b"220 mail.example.org ESMTP\r\n", b'{"kind": "nonce"}\n', b"x" * 9000]
)
def test_another_service_is_not_spoken_to(greeting):
    with pytest.raises(ChannelError):
        meet(greeting)


# -- the shim ------------------------------------------------------------------------------------


def shim_environ(launcher, **changes):
    """Return what a rank finds in its environment under Open MPI."""
    foreign = ("OMPI_", "PMI", "HPCTRAIN_", "OMP_")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    environ |= {f"OMPI_COMM_WORLD_{k}": v for k, v in (
        ("RANK", "0"), ("SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_SIZE", "1"),
    )}  # fmt: skip
    environ["HPCTRAIN_SIZE"] = "1"
    if launcher is not None:
        environ |= {
            "HPCTRAIN_CHANNEL": launcher.server.address, "HPCTRAIN_SECRET": launcher.secret,
        }  # fmt: skip
    return {**environ, **changes}


def start_shim(launcher, *program, **changes):
    """Start the shim of rank 0 with a program."""
    return subprocess.Popen(
        [sys.executable, "-m", "hpctrain.launch.shim", "--", *program],
        env=shim_environ(launcher, **changes), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


class Rank:
    """A launcher and the one shim that reports to it."""

    def __init__(self):
        self.launcher = Launcher(size=1)
        self.shim = None

    def start(self, *program, **changes):
        self.shim = start_shim(self.launcher, *program, **changes)

    def wait_for_output(self, text):
        self.launcher.serve_until(lambda: text in self.launcher.output())

    def finish(self):
        """Listen until the shim has gone; return its exit code and its last frame."""
        self.launcher.serve_until(lambda: self.launcher.lost)
        out, err = self.shim.communicate(timeout=PATIENCE_S)
        assert (out, err) == (b"", b"")
        return self.shim.returncode, self.launcher.frames[-1][1]

    def run(self, *program, **changes):
        self.start(*program, **changes)
        return self.finish()

    def close(self):
        self.launcher.close()
        if self.shim is not None:
            self.shim.kill()
            self.shim.communicate()


@pytest.fixture
def rank():
    made = Rank()
    yield made
    made.close()


def python(code, *arguments):
    return (sys.executable, "-c", code, *arguments)


def wait_for_the_end_of(pids, patience_s=PATIENCE_S):
    """Wait until none of these processes runs."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], patience_s)
        os.close(descriptor)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        assert ended, f"process {pid} was left running"


def test_a_rank_says_hello_start_output_exit(rank):
    code, last = rank.run("printf", "%s", "a b; $(c)")
    frames = [frame for _, frame in rank.launcher.frames]
    assert [frame["kind"] for frame in frames] == ["hello", "start", "output", "exit"]
    hello = {key: frames[0][key] for key in ("host", "pid", "size", "local_rank", "rank")}
    host = socket.gethostname()
    assert hello == dict(host=host, pid=rank.shim.pid, size=1, local_rank=0, rank=0)
    assert rank.launcher.output() == b"a b; $(c)"
    assert (code, last["code"], last["signal"]) == (0, 0, None)


NASTY = bytes(range(256)) + b"\x1ehpctrain {}\n\xff\0 no end"


def test_every_byte_of_both_streams_arrives(rank):
    code = (
        "import sys; data = bytes.fromhex(sys.argv[1])\n"
        "sys.stdout.buffer.write(data); sys.stderr.buffer.write(data[::-1])"
    )
    rank.run(*python(code, NASTY.hex()))
    assert rank.launcher.output() == NASTY
    assert rank.launcher.output("stderr") == NASTY[::-1]


BURST = """
import sys, threading
block = bytes(range(256)) * 4096
def pour(stream, data):
    for _ in range(5):
        stream.buffer.write(data)
other = threading.Thread(target=pour, args=(sys.stderr, block[::-1]))
other.start()
pour(sys.stdout, block)
other.join()
"""


def test_a_burst_on_both_streams_arrives_whole(rank):
    code, _ = rank.run(*python(BURST))
    block = bytes(range(256)) * 4096
    assert rank.launcher.output() == block * 5
    assert rank.launcher.output("stderr") == block[::-1] * 5
    assert code == 0


FILL_AND_LEAVE = """
import os, select, sys
os.set_blocking(1, False)
written = 0
while select.select([], [1], [], 0.5)[1]:  # until the shim has stopped reading
    written += os.write(1, b"x" * 4096)
with open(sys.argv[1], "w") as file:
    file.write(str(written))
sys.exit(6)
"""


def test_a_program_may_end_while_the_launcher_is_slow(rank, tmp_path):
    note = tmp_path / "written"
    os.mkfifo(note)
    rank.start(*python(FILL_AND_LEAVE, str(note)))
    rank.launcher.serve_until(lambda: rank.launcher.of("start"))
    written = int(note.read_text())  # nobody listens to the rank meanwhile
    wait_for_the_end_of([rank.launcher.of("start")[0]["program_pid"]])
    shim = os.pidfd_open(rank.shim.pid)
    select.select([shim], [], [], 0.5)  # it hears of the end, and cannot send all it has
    os.close(shim)
    code, last = rank.finish()
    assert rank.launcher.output() == b"x" * written
    assert (code, last["kind"], last["code"]) == (6, "exit", 6)


@pytest.mark.parametrize("number", [0, 1, 7, 255])
def test_exit_codes(rank, number):
    code, last = rank.run("sh", "-c", f"exit {number}")
    assert (code, last["kind"], last["code"], last["signal"]) == (number, "exit", number, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_becomes_128_and_its_number(rank, number):
    code, last = rank.run(*python(f"import os; os.kill(os.getpid(), {int(number)})"))
    assert (code, last["code"], last["signal"]) == (128 + number, 128 + number, number)


def test_a_missing_program_is_127_with_the_reason(rank):
    code, last = rank.run("no-such-program", "x")
    error = "no-such-program: No such file or directory"
    assert (code, last) == (127, {"kind": "exit", "code": 127, "error": error})


def test_a_program_that_may_not_run_is_named(rank, tmp_path):
    (tmp_path / "plain").touch()
    code, last = rank.run(str(tmp_path / "plain"))
    assert (code, last["error"]) == (127, f"{tmp_path / 'plain'}: Permission denied")


def test_steps_become_events_and_garbage_does_not(rank):
    code = (
        "import hpctrain, os\n"
        "hpctrain.report_step(1, loss=0.5)\n"
        "descriptor = int(os.environ['HPCTRAIN_EVENTS_FD'].split(':')[0])\n"
        "os.write(descriptor, b'garbage\\n[1]\\n7\\n\\xff\\n')\n"
        "hpctrain.report_step(2, loss=float('nan'), note='a\\nb')\n"
    )
    assert rank.run(*python(code))[0] == 0
    records = [frame["record"] for frame in rank.launcher.of("event")]
    for record in records:
        assert record.pop("time_s") > 0
    assert records == [
        {"schema": 1, "event": "step", "step": 1, "loss": 0.5},
        {"schema": 1, "event": "step", "step": 2, "loss": "nan", "note": "a\nb"},
    ]


def test_a_forked_helper_may_report_too(rank):
    code = "import hpctrain, os\nos.fork() or (hpctrain.report_step(3), os._exit(0))\nos.wait()"
    assert rank.run(*python(code))[0] == 0
    assert [frame["record"]["step"] for frame in rank.launcher.of("event")] == [3]


def test_the_program_gets_its_rank_and_none_of_our_secrets(rank):
    rank.run("env", "-0", HPCTRAIN_ATTEMPT="r.1", OMP_NUM_THREADS="3")
    pairs = [entry.split("=", 1) for entry in rank.launcher.output().decode().split("\0") if entry]
    environ = dict(pairs)
    assert not {"HPCTRAIN_SECRET", "HPCTRAIN_CHANNEL"} & set(environ)
    assert not any(rank.launcher.secret in value for value in environ.values())
    wanted = {"RANK": "0", "WORLD_SIZE": "1", "OMP_NUM_THREADS": "3", "HPCTRAIN_ATTEMPT": "r.1"}
    assert wanted.items() <= environ.items()
    assert "HPCTRAIN_EVENTS_FD" in environ
    assert rank.launcher.secret not in json.dumps(rank.launcher.frames)


LISTENER = """
import signal, sys, time
def hear(number, frame):
    print("heard", number, flush=True)
    if number != signal.SIGUSR1:
        sys.exit(5)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, hear)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_of_the_launcher_reaches_the_program(rank, number):
    rank.start(*python(LISTENER))
    rank.wait_for_output(b"ready\n")
    rank.launcher.server.send_signal(signal.SIGUSR1)
    rank.wait_for_output(b"heard 10\n")
    rank.launcher.server.send_signal(number)
    code, last = rank.finish()
    assert rank.launcher.output() == f"ready\nheard 10\nheard {int(number)}\n".encode()
    assert (code, last["code"], last["signal"]) == (5, 5, None)


def test_a_signal_of_mpirun_reaches_the_program_once(rank):
    rank.start(*python(LISTENER))
    rank.wait_for_output(b"ready\n")
    rank.shim.send_signal(signal.SIGTERM)
    assert rank.finish()[0] == 5
    assert rank.launcher.output() == b"ready\nheard 15\n"


IGNORER = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_who_ignores_sigterm_is_killed_after_the_grace(rank):
    rank.start(*python(IGNORER), HPCTRAIN_GRACE_S="0.1")
    rank.wait_for_output(b"ready\n")
    rank.launcher.server.send_signal(signal.SIGTERM)
    code, last = rank.finish()
    assert (code, last["code"], last["signal"]) == (137, 137, 9)


def test_a_second_asking_does_not_wait_for_the_grace(rank):
    rank.start(*python(IGNORER), HPCTRAIN_GRACE_S="600")
    rank.wait_for_output(b"ready\n")
    rank.launcher.server.send_signal(signal.SIGTERM)
    rank.launcher.server.send_signal(signal.SIGKILL)
    assert rank.finish()[0] == 137


# A helper in its own session whose parent has gone, one in the program's group, and itself.
FAMILY = '''
import os, signal, subprocess, sys, time
script = "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait"
daemon = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
os.write(1, str(os.getpid()).encode() + bytes([10]))
time.sleep(1000)
"""
subprocess.run([sys.executable, "-c", daemon])
subprocess.Popen(["sh", "-c", script])
os.write(1, str(os.getpid()).encode() + bytes([10]))  # print writes number and newline apart
if sys.argv[1] == "ignore":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1] != "leave":
    while True:
        time.sleep(1000)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
'''


def family(rank, how, note, **changes):
    """Start a program with helpers; return all their process ids once they are there."""
    rank.start(*python(FAMILY, how, str(note)), **changes)
    rank.launcher.serve_until(lambda: rank.launcher.output().count(b"\n") == 4)
    return [int(word) for word in rank.launcher.output().split()]


@pytest.mark.parametrize("how", ["stay", "ignore"])
def test_without_a_launcher_program_and_helpers_end(rank, tmp_path, how):
    pids = family(rank, how, tmp_path / "go", HPCTRAIN_GRACE_S="0.1")
    rank.launcher.close()
    rank.shim.communicate(timeout=PATIENCE_S)
    assert rank.shim.returncode in (137, 143)
    wait_for_the_end_of(pids)


PRINTS_WHEN_ENDED = """
import signal, subprocess, sys
helper = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
def say(*_):
    sys.stdout.write("last words\\n" * 1000)
    sys.exit(0)
signal.signal(signal.SIGTERM, say)
print(helper.pid, flush=True)
while True:
    signal.pause()
"""


def test_without_launcher_and_mpirun_helpers_end(rank):
    rank.start(*python(PRINTS_WHEN_ENDED))
    rank.wait_for_output(b"\n")
    helper = int(rank.launcher.output())
    rank.shim.stdout.close()  # mpirun, which forwards it, has gone as well
    rank.launcher.close()
    rank.shim.wait(timeout=PATIENCE_S)
    wait_for_the_end_of([helper], patience_s=1.0)


def test_helpers_do_not_outlive_a_program_that_is_done(rank, tmp_path):
    pids = family(rank, "leave", tmp_path / "go")
    (tmp_path / "go").touch()
    assert rank.finish()[0] == 0
    wait_for_the_end_of(pids)


def test_a_helper_that_never_stops_printing_is_ended_too(rank):
    assert rank.run("sh", "-c", "yes & exit 3")[0] == 3


MAPS_A_FILE = """
import mmap, os, sys, time
with open(os.fsencode(sys.argv[1]) + b"/\\xff", "w+b") as file:
    file.write(b"data")
    file.flush()
    mapped = mmap.mmap(file.fileno(), 0)
time.sleep(1000)
"""


def test_a_program_may_map_a_file_of_any_name(rank, tmp_path):
    rank.start(*python(MAPS_A_FILE, str(tmp_path)))
    rank.launcher.serve_until(lambda: rank.launcher.of("beat") or rank.launcher.lost)
    rank.launcher.server.send_signal(signal.SIGTERM)
    assert rank.finish()[0] == 143


def test_a_program_that_closes_its_output_is_still_watched(rank):
    code, last = rank.run("sh", "-c", "echo first; exec >&- 2>&-; exit 4")
    assert rank.launcher.output() == b"first\n"
    assert (code, last["code"]) == (4, 4)


def test_without_a_channel_the_program_takes_the_shims_place():
    shim = start_shim(None, *python("import os; print(os.getpid(), os.environ['RANK'])"))
    out, err = shim.communicate(timeout=PATIENCE_S)
    assert (out.decode(), err, shim.returncode) == (f"{shim.pid} 0\n", b"", 0)
    missing = start_shim(None, "no-such-program", HPCTRAIN_CHANNEL="")
    out, err = missing.communicate(timeout=PATIENCE_S)
    assert (missing.returncode, out) == (127, b"")
    assert err == b"no-such-program: No such file or directory\n"


def frames_behind_the_mark(out):
    lines = out.splitlines(keepends=True)
    assert all(line.startswith(STDIO_MARK) and line.endswith(b"\n") for line in lines)
    assert max(map(len, lines)) <= select.PIPE_BUF  # longer ones may be cut by mpirun
    return [decode_frame(line[len(STDIO_MARK) :]) for line in lines]


def test_an_unreachable_launcher_is_told_through_standard_output():
    code = (
        "import sys, hpctrain; hpctrain.report_step(4)\n"
        "sys.stdout.buffer.write(bytes.fromhex(sys.argv[1])); sys.exit(3)"
    )
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        where = {"HPCTRAIN_CHANNEL": address, "HPCTRAIN_SECRET": "the secret"}
        shim = start_shim(None, *python(code, (NASTY * 20).hex()), **where)
        out, err = shim.communicate(timeout=PATIENCE_S)
    assert (shim.returncode, err) == (3, b"")
    assert b"the secret" not in out
    frames = frames_behind_the_mark(out)
    assert all(frame["rank"] == 0 for frame in frames)
    assert frames[0]["kind"] == "hello"
    assert frames[0]["fallback"].startswith(f"{address}: ")
    said = "".join(frame["data"] for frame in frames if frame["kind"] == "output")
    assert said.encode("latin-1") == NASTY * 20
    assert [frame["record"]["step"] for frame in frames if frame["kind"] == "event"] == [4]
    assert (frames[-1]["kind"], frames[-1]["code"]) == ("exit", 3)


def test_another_service_in_the_launchers_place_is_told_too():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        shim = start_shim(None, "true", HPCTRAIN_CHANNEL=address, HPCTRAIN_SECRET="s")
        peer, _ = listener.accept()
        peer.sendall(b"220 mail.example.org ESMTP\r\n")
        out, _ = shim.communicate(timeout=PATIENCE_S)
        peer.close()
    assert shim.returncode == 0
    kinds = [frame["kind"] for frame in frames_behind_the_mark(out)]
    assert kinds == ["hello", "start", "exit"]


def test_a_world_of_another_size_is_an_error_and_starts_nothing(tmp_path):
    note = tmp_path / "ran"
    shim = start_shim(None, "touch", str(note), HPCTRAIN_SIZE="4")
    _, err = shim.communicate(timeout=PATIENCE_S)
    assert shim.returncode not in (0, None)
    assert b"world of another size, got 1; expected 4" in err
    assert not note.exists()


def test_a_world_of_another_size_is_said_without_a_traceback():
    shim = start_shim(None, "true", HPCTRAIN_SIZE="4")
    _, err = shim.communicate(timeout=PATIENCE_S)
    assert b"Traceback" not in err
