"""Which step on the way to a host fails, told by ssh's real words and by connections of our own."""

import errno
import socket

import pytest

from hpctrain.executor import Command, Completed, RecordingExecutor
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.ssh_words import SshTarget, parse_ssh_target, parse_ssh_words
from hpctrain.preflight.way_there import find_broken_step, find_broken_steps, judge_login

TARGET = SshTarget("198.19.114.13", 22, "root", "")

# What ssh of OpenSSH 9.2p1 (Debian 12) wrote to stderr and ended with 255, captured against a
# node whose sshd was as described; the addresses are of the range for tests of networks.
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:TkRvvqoWQG1EMqttv8lzJmzlaXoQ4wyM9zHaVYot9bA.
Please contact your system administrator.
Add correct host key in /home/ada/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/ada/.ssh/known_hosts:1
{}Host key for n2 has changed and you have requested strict checking.
Host key verification failed.
"""
LOOSE_KEY = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Permissions 0644 for '/home/ada/.ssh/id' are too open.
It is required that your private key files are NOT accessible by others.
This private key will be ignored.
Load key "/home/ada/.ssh/id": bad permissions
root@198.19.114.13: Permission denied (publickey,keyboard-interactive).
"""
REMOVE = '  remove with:\n  ssh-keygen -f "/home/ada/.ssh/known_hosts" -R "n2"\n'
CAPTURED = [
    (
        "ssh: Could not resolve hostname no-such-host.invalid: Temporary failure in name "
        "resolution\n",
        "name", "no-such-host.invalid has no address: Temporary failure", "getent hosts",
    ),
    (
        "No ED25519 host key is known for 198.19.114.13 and you have requested strict checking.\n"
        "Host key verification failed.\n",
        "host key", "its ED25519 host key is not in known_hosts", "ssh-keyscan -p 22",
    ),
    ("Host key verification failed.\n", "host key", "not in known_hosts", "ssh-keyscan"),
    (CHANGED.format(REMOVE), "host key", "another than known_hosts holds",
     'ssh-keygen -f "/home/ada/.ssh/known_hosts" -R "n2"; ssh-keyscan'),
    (CHANGED.format(""), "host key", "another than", "ssh-keygen -R 198.19.114.13; ssh-keyscan"),
    (
        "no such identity: /nonexistent: No such file or directory\n"
        "root@198.19.114.13: Permission denied (publickey,keyboard-interactive).\n",
        "login", "no key of this user is accepted (publickey,keyboard-interactive)",
        "ssh-copy-id -p 22 root@198.19.114.13",
    ),
    (LOOSE_KEY, "login", "others may read the private key", "chmod 600"),
    ("ssh: connect to host 198.19.114.13 port 2299: Connection refused\n", "port",
     "nothing listens", "systemctl start ssh"),
    ("ssh: connect to host 203.0.113.9 port 22: Network is unreachable\n", "route", "no route",
     "ip route get"),
    ("ssh: connect to host 198.19.114.250 port 22: No route to host\n", "route", "no route", ""),
    ("ssh: connect to host 198.19.114.13 port 22: Connection timed out\n", "port", "firewall", ""),
    (
        "Unable to negotiate with 198.19.114.13 port 22: no matching host key type found. "
        "Their offer: ssh-ed25519\n",
        "server", "no host key type in common; it offers ssh-ed25519", "ssh_config",
    ),
    (
        "kex_exchange_identification: read: Connection reset by peer\n"
        "Connection reset by 198.19.114.13 port 2301\n",
        "server", "hangs up", "MaxStartups",
    ),
    (
        "kex_exchange_identification: Connection closed by remote host\n"
        "Connection closed by 198.19.114.13 port 2302\n",
        "server", "hangs up", "",
    ),
    (
        "Connection timed out during banner exchange\n"
        "Connection to 198.19.114.13 port 2303 timed out\n",
        "server", "no ssh server speaks there", "",
    ),
    (
        "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n"
        "kex_exchange_identification: Connection closed by remote host\n"
        "Connection closed by UNKNOWN port 65535\n",
        "port", "the jump host cannot reach it: Connection refused", "on the jump host",
    ),
    ("command-line: line 0: Bad configuration option: nosuchoption\n", "ssh client", "refuses", ""),
]  # fmt: skip


@pytest.mark.parametrize(("words", "step", "found", "fix"), CAPTURED)
def test_sshs_words_name_the_step(words, step, found, fix):
    broken = parse_ssh_words(words, "n2", TARGET)
    assert broken.step == step
    assert found in broken.found
    assert fix in broken.fix
    assert "{" not in broken.found + broken.fix


def test_words_that_say_nothing_name_no_step():
    assert parse_ssh_words("", "n2") is None
    assert parse_ssh_words("bash: line 1: frobnicate: command not found\n", "n2") is None


def test_where_ssh_would_go():
    text = (
        "host x\nuser ada\nhostname 198.19.114.13\nport 2222\nproxyjump head\nproxycommand none\n"
    )
    assert parse_ssh_target(text) == SshTarget("198.19.114.13", 2222, "ada", "head")
    assert parse_ssh_target("hostname n1\nport 22\n") == SshTarget("n1", 22, "", "")
    assert parse_ssh_target("") is None
    other_port = parse_ssh_words(CHANGED.format(""), "n2", SshTarget("h", 2222, "", "head"))
    assert "'[h]:2222'" in other_port.fix
    assert other_port.found.endswith("(through head)")


# -- walking there --------------------------------------------------------------------------------


def walk(host, port, contact, answers=None):
    """Look at a host that ssh -G would take for host:port."""
    target = f"user ada\nhostname {host}\nport {port}\n"
    executor = RecordingExecutor({"ssh -G": (0, target, ""), **(answers or {})})
    found = find_broken_steps({"n1": contact}, ("-F", "c"), "/venv/bin/python", executor)
    return found["n1"], [command.argv for command in executor.commands]


FAILED = Contact(returncode=255, words="ssh: connect to host n1 port 22: something else\n")


@pytest.fixture
def open_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_name_without_an_address():
    broken, _ = walk("no-such-host.invalid", 22, FAILED)
    assert broken.step == "name"
    assert broken.found.startswith("no-such-host.invalid has no address: ")


def test_a_port_where_nothing_listens(open_port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    broken, commands = walk("127.0.0.1", closed, FAILED)
    assert (broken.step, broken.found) == ("port", f"nothing listens on port {closed}")
    assert len(commands) == 1  # ssh itself need not be asked again


@pytest.mark.parametrize(
    ("problem", "step", "found"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "route", "No route to host"),
        (OSError(errno.ENETUNREACH, "x"), "route", "Network is unreachable"),
        (TimeoutError(), "port", "within 5 s: the host is off, or a firewall drops it"),
        (PermissionError(errno.EACCES, "Permission denied"), "port", "Permission denied"),
    ],
)
def test_what_the_kernel_says_of_a_connection(monkeypatch, problem, step, found):
    class Refusing(socket.socket):
        def connect(self, address):
            raise problem

    monkeypatch.setattr("hpctrain.preflight.way_there.socket.socket", Refusing)
    broken, _ = walk("127.0.0.1", 22, FAILED)
    assert broken.step == step
    assert found in broken.found


def test_behind_an_open_port_sshs_words_count(open_port):
    refused = Contact(returncode=255, words="ada@n1: Permission denied (publickey).\n")
    broken, commands = walk("127.0.0.1", open_port, refused)
    assert broken.step == "login"
    assert broken.fix == f"ssh-copy-id -p {open_port} ada@127.0.0.1"
    assert len(commands) == 1


def test_an_ssh_that_said_nothing_is_made_to_speak(open_port):
    silent = Contact(returncode=255)
    answers = {"LogLevel=INFO": (255, "", "Host key verification failed.\n")}
    broken, commands = walk("127.0.0.1", open_port, silent, answers)
    assert broken.step == "host key"
    assert commands[-1][-2:] == ("n1", "true")


@pytest.mark.parametrize(
    ("contact", "step", "found"),
    [
        # bash, captured; sh says it likewise
        (Contact(returncode=127, words="bash: line 1: /no/such/python: No such file or directory"),
         "python", "no /venv/bin/python there"),
        (Contact(returncode=126), "python", "no /venv/bin/python there"),
        # Python 3.11, captured
        (Contact(returncode=1, words="/usr/bin/python3: Error while finding module specification "
         "for 'hpctrain.preflight.ask_node' (ModuleNotFoundError: No module named 'hpctrain')\n"),
         "hpctrain", "has no hpctrain of this kind"),
        # nologin of Debian 12, captured
        (Contact(returncode=1, words="This account is currently not available.\n"),
         "shell", "no login shell"),
        (Contact(returncode=3, words="a\nlast words\n"), "answer", "exit code 3: last words"),
    ],
)  # fmt: skip
def test_what_is_missing_where_ssh_logs_in(contact, step, found):
    broken, commands = walk("n1", 22, contact)
    assert broken.step == step
    assert found in broken.found
    assert len(commands) == 1


def login(code, stderr=""):
    done = Completed(Command(("true",)), code, "", stderr)
    return judge_login(done, Contact(returncode=124, words="no answer within 9 s"), "n1", TARGET)


def test_a_login_that_hangs_is_told_from_a_question_that_hangs():
    assert login(124, "no answer within 20 s").step == "shell"
    slow = login(0)
    assert slow.step == "answer"
    assert "no answer within 9 s" in slow.found
    assert login(255, "something new").step == "login"
    assert login(5, "odd").step == "shell"


def test_fixes_go_where_ssh_went_and_name_no_file_that_will_be_gone():
    answers = {
        "ssh -G .* n1": (0, "user ada\nhostname 10.0.0.7\nport 2222\n", ""),
        "ssh -G .* ip6-": (0, "user ada\nhostname fe80::1\nport 22\n", ""),
    }
    broken = find_broken_steps(
        {"n1": Contact(returncode=3), "fe80::1": Contact(returncode=3)}, ("-F", "/tmp/gone"),
        "/venv/bin/python", RecordingExecutor(answers), ssh_config="/lab/ssh config",
    )  # fmt: skip
    assert broken["n1"].fix.startswith("ssh -F '/lab/ssh config' -p 2222 ada@n1 /venv/")
    # Its alias is known in our own configuration alone.
    assert broken["fe80::1"].fix.startswith("ssh -F '/lab/ssh config' ada@fe80::1 /venv/")
    slow = login(0)
    assert slow.fix.endswith("ssh root@n1 uptime")
    refused = RecordingExecutor({"ssh -G": (255, "", "x: line 1: Bad configuration option: x\n")})
    words = (("-F", "/tmp/gone"), "python", refused)
    assert find_broken_step("n1", FAILED, *words).fix == "ssh n1 -G"
    assert find_broken_step("n1", FAILED, *words, "/lab/c").fix == "ssh -F /lab/c n1 -G"


def test_no_ssh_at_all():
    broken = find_broken_step("n1", FAILED, (), "python", RecordingExecutor())
    assert broken.step == "ssh client"
    refused = RecordingExecutor({"ssh -G": (255, "", "c: line 1: Bad configuration option: x\n")})
    assert "Bad configuration option" in find_broken_step("n1", FAILED, (), "p", refused).found
