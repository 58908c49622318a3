"""What the kernel says of a program, and of the way to the launcher."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from hpctrain.launch import rank_life
from hpctrain.launch.rank_life import group_state, is_cut_off, process_state


def wait_for_state(pid, wanted):
    deadline_s = time.monotonic() + 10
    while process_state(pid) != wanted:
        assert time.monotonic() < deadline_s, process_state(pid)
        time.sleep(0.01)


def test_states_of_a_process():
    process = subprocess.Popen(["sleep", "60"])
    try:
        wait_for_state(process.pid, "S")
        process.send_signal(signal.SIGSTOP)
        wait_for_state(process.pid, "T")
        process.send_signal(signal.SIGCONT)
        wait_for_state(process.pid, "S")
    finally:
        process.kill()
        wait_for_state(process.pid, "Z")
        process.wait()
    assert process_state(process.pid) == ""


def test_a_name_may_hold_anything(tmp_path):
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        wait_for_state(process.pid, "S")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def pair():
    """A connection over loopback: this end, and that of the launcher."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    yield near, far
    near.close()
    far.close()


def test_a_launcher_that_does_not_read_is_not_gone(pair):
    near, _ = pair
    near.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(b"x" * 65536)
    time.sleep(0.3)  # its kernel answers for it, with a window that is closed
    assert not is_cut_off(near, 60.0)


def test_an_idle_connection_is_not_cut_off_however_long_ago_the_last_word(pair):
    near, _ = pair
    time.sleep(0.05)
    assert not is_cut_off(near, 0.01)


def info(unacked, last_ack_ms):
    """A tcp_info as the kernel lays it out: eight bytes, then 32-bit numbers."""
    numbers = [0] * 24
    numbers[4], numbers[12] = unacked, last_ack_ms
    return struct.pack("=8B24I", *[1] * 8, *numbers)


@pytest.mark.parametrize(
    ("unacked", "last_ack_ms", "gone"), [(0, 99_000, False), (3, 9_000, False), (3, 11_000, True)]
)
def test_cut_off_is_who_waits_for_an_answer_for_too_long(unacked, last_ack_ms, gone):
    class Socket:
        def getsockopt(self, level, option, length):
            assert (level, option) == (socket.IPPROTO_TCP, 11)
            return info(unacked, last_ack_ms)[:length]

    assert is_cut_off(Socket(), 10.0) == gone


def test_the_fields_stand_where_the_kernel_puts_them(pair):
    """tcpi_unacked and tcpi_last_ack_recv, by their place in linux/tcp.h, on a live connection."""
    near, far = pair
    near.send(b"hello")
    assert far.recv(5) == b"hello"
    time.sleep(0.2)
    fields = rank_life._TCP_INFO.unpack(near.getsockopt(socket.IPPROTO_TCP, 11, 104))
    assert fields[rank_life._UNACKED] == 0
    assert 100 <= fields[rank_life._LAST_ACK_MS] < 30_000


def test_what_is_no_tcp_connection_is_not_judged():
    near, far = socket.socketpair()
    with near, far:
        assert not is_cut_off(near, 0.0)
    assert not is_cut_off(near, 0.0)  # closed


def test_a_connection_through_a_cut_cable_is_cut_off():
    """Only where this user may make a network namespace: a pair of links, one of them down."""
    if os.geteuid() or not os.path.exists("/proc/self/ns/net"):
        pytest.skip("netns: needs root")
    code = """
import socket, subprocess, sys, time
from hpctrain.launch.rank_life import is_cut_off
def ip(*words): subprocess.run(["ip", *words], check=True)
ip("link", "set", "lo", "up")
ip("link", "add", "name", "near0", "type", "veth", "peer", "name", "far0")
ip("addr", "add", "198.51.100.1/24", "dev", "near0")
ip("link", "set", "near0", "up")
ip("link", "set", "far0", "up")
ip("neigh", "add", "198.51.100.2", "lladdr", "02:00:00:00:00:09", "dev", "near0")
near = socket.socket()
near.setblocking(False)
near.connect_ex(("198.51.100.2", 9))  # its SYN is never answered
deadline_s = time.monotonic() + 8
while not is_cut_off(near, 0.2) and time.monotonic() < deadline_s:
    time.sleep(0.05)
print(is_cut_off(near, 0.2))
"""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    if not shutil.which("ip", path=path) or not shutil.which("unshare", path=path):
        pytest.skip("netns: no ip or unshare")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"netns: {done.stderr.strip()}")
    assert done.stdout == "True\n", done.stderr


def test_a_program_that_is_stopped_below_a_shell_is_seen():
    script = "sleep 60 & echo $!; setsid sleep 60 & echo $!; wait"
    shell = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    inside, apart = (int(shell.stdout.readline()) for _ in range(2))
    try:
        while os.getpgid(apart) == shell.pid:
            time.sleep(0.01)
        for pid in (shell.pid, inside, apart):  # each sleeps: all have begun
            wait_for_state(pid, "S")
        assert group_state(shell.pid, [shell.pid, inside, apart]) == "S"
        os.kill(apart, signal.SIGSTOP)  # a helper in a group of its own: nobody need wait for it
        wait_for_state(apart, "T")
        assert group_state(shell.pid, [shell.pid, inside, apart]) == "S"
        os.kill(inside, signal.SIGSTOP)
        wait_for_state(inside, "T")
        assert group_state(shell.pid, [shell.pid, inside, apart]) == "T"
        assert process_state(shell.pid) == "S"
    finally:
        os.kill(apart, signal.SIGKILL)
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        shell.stdout.close()
    assert group_state(shell.pid, []) == ""
