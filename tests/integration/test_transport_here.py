"""The transport contract on this machine alone, with real ranks."""

import launching
import pytest

pytestmark = pytest.mark.needs("mpirun", "horovod")


def test_one_machine_proves_no_network_and_starts_nothing(tmp_path):
    kept = {"TMPDIR": str(tmp_path)}  # where the logs of a failed proof stay
    done = launching.run(tmp_path, "--np", "2", "--require-transport", "ib", "--", "true", env=kept)
    assert done.returncode == 1
    assert "all ranks are on one host, got no traffic between hosts; expected ib" in done.stderr
    assert "on-host:  all connections are sm" in done.stderr
    assert not done.path.exists()


def test_nvlink_is_not_shared_memory(tmp_path):
    done = launching.run(
        tmp_path, "--np", "2", "--set", "launch.require_transport=nvlink", "--", "true",
        env={"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "got shm within a host by Open MPI; expected nvlink" in done.stderr
