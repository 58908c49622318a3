"""Files that a run appends to: what a full disk does not take comes later, and in its order."""

import builtins
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain import append_files
from hpctrain.append_files import EVENTS_FILE, AppendFiles


class Disk:
    """A folder on a disk with so much room; files that it hands out are real ones."""

    def __init__(self, folder, room_bytes):
        self.folder, self.room_bytes, self.error, self.warnings = folder, room_bytes, None, []
        self.files = AppendFiles(folder, self.warnings.append)

    def open(self, path, mode, **more):
        if self.error or not (self.room_bytes or os.path.exists(path)):
            self.fail()
        return File(self, builtins.open(path, mode, **more))

    def fail(self):
        number = self.error or errno.ENOSPC
        raise OSError(number, os.strerror(number))

    def read(self, name):
        path = self.folder / name
        return path.read_bytes() if path.exists() else b""


class File:
    def __init__(self, disk, file):
        self.disk, self.file = disk, file

    def write(self, data):
        if self.disk.error or not self.disk.room_bytes:
            self.disk.fail()
        taken = self.file.write(data[: self.disk.room_bytes])
        self.disk.room_bytes -= taken
        return taken

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    made = Disk(tmp_path, 1000)
    monkeypatch.setattr(append_files, "open", made.open, raising=False)
    return made


def test_what_a_full_disk_does_not_take_waits_and_keeps_its_order(disk):
    disk.room_bytes = 7
    disk.files.append(EVENTS_FILE, b'{"a":1}\n')
    assert disk.read(EVENTS_FILE) == b'{"a":1}'  # a short write: the end of the line waits
    disk.files.append(EVENTS_FILE, b'{"a":2}\n')
    disk.files.append("log", b"x")
    assert disk.read(EVENTS_FILE) == b'{"a":1}'
    disk.room_bytes = 1000
    disk.files.append("log", b"y")
    assert disk.read(EVENTS_FILE) == b'{"a":1}\n{"a":2}\n'
    assert disk.read("log") == b"xy"
    (warning,) = disk.warnings
    assert "No space left on device" in warning
    disk.files.close()
    assert len(disk.warnings) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_other_problems_are_raised(disk, number):
    disk.error = number
    with pytest.raises(OSError, match=os.strerror(number)):
        disk.files.append(EVENTS_FILE, b"{}\n")
    assert disk.warnings == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_a_new_file_is_a_full_disk_too(disk, number):
    disk.error = number
    disk.files.append("log", b"x")
    disk.error = None
    disk.files.close()
    assert disk.read("log") == b"x"


def test_memory_is_bounded_and_output_does_not_push_events_out(disk, monkeypatch):
    monkeypatch.setattr(append_files, "MAX_WAITING_BYTES", 10)
    disk.room_bytes = 0
    disk.files.append("log", b"12345678")
    disk.files.append("other", b"too much")
    disk.files.append(EVENTS_FILE, b"12345678\n")
    disk.files.append("other", b"90")
    disk.room_bytes = 1000
    disk.files.append(EVENTS_FILE, b"")
    assert (disk.read("log"), disk.read("other")) == (b"12345678", b"90")
    assert disk.read(EVENTS_FILE) == b"12345678\n"
    disk.files.close()
    assert disk.warnings[1:] == [f"{disk.folder}: 8 bytes of events and logs are missing"]


def test_what_never_got_room_is_said_at_the_end(disk):
    disk.room_bytes = 0
    disk.files.append(EVENTS_FILE, b"12345")
    disk.files.close()
    assert disk.warnings[1:] == [f"{disk.folder}: 5 bytes of events and logs are missing"]


def test_a_half_line_of_a_crash_is_ended_though_the_disk_is_full(disk):
    (disk.folder / EVENTS_FILE).write_bytes(b'{"half')
    disk.room_bytes = 0
    disk.files.append(EVENTS_FILE, b"{}\n")
    disk.room_bytes = 1000
    disk.files.close()
    assert disk.read(EVENTS_FILE) == b'{"half\n{}\n'


@given(st.lists(st.tuples(st.sampled_from(["a", "b.jsonl", EVENTS_FILE]), st.integers(0, 9))))
def test_however_much_room_there_is_nothing_is_lost_or_doubled(tmp_path_factory, appends):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(tmp_path_factory.mktemp("disk"), 0)
        patch.setattr(append_files, "open", disk.open, raising=False)
        for number, (name, room_bytes) in enumerate(appends):
            disk.room_bytes = room_bytes
            disk.files.append(name, b"%03d\n" % number)
        disk.room_bytes = 10_000
        disk.files.close()
        for name in {name for name, _ in appends}:
            mine = [b"%03d\n" % n for n, (other, _) in enumerate(appends) if other == name]
            assert disk.read(name) == b"".join(mine)
