"""Facts of GPUs' links and of the fabric's software: parsers on captured output."""

import json

import pytest

from hpctrain import probe_fabric
from hpctrain.executor import RecordingExecutor
from hpctrain.fabric_facts import (
    parse_efa_packages,
    parse_gpu_link,
    parse_library_version,
    parse_machine_type,
    parse_peer_access,
    parse_plugin_version,
)
from hpctrain.facts import HostFacts, host_facts_as_json, host_facts_from_json
from hpctrain.launch.mpi_build import probe_ucx

# NVIDIA/nccl#1453, its first two of eight GPUs' rows with all columns; tabs as posted.
H100_NVLINK = (
    "\tGPU0\tGPU1\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    "GPU0\t X \tNV18\tSYS\tSYS\t0-79\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tSYS\tSYS\t0-79\t0\t\tN/A\n"
    "NIC0\tSYS\tSYS\t X \tSYS\n"
    "NIC1\tSYS\tSYS\tSYS\t X \n"
)
# NVIDIA/nccl#1343: pairs by NVLink, and no more (four of its eight GPUs).
A40_PAIRS = """\
        GPU0    GPU1    GPU2    GPU3    NIC0    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      NV4     NODE    NODE    NODE    0-95    0               N/A
GPU1    NV4      X      NODE    NODE    NODE    0-95    0               N/A
GPU2    NODE    NODE     X      NV4     PIX     0-95    0               N/A
GPU3    NODE    NODE    NV4      X      PIX     0-95    0               N/A
NIC0    NODE    NODE    PIX     PIX      X
"""
# noonghunna/club-3090#1229.
RTX_5090 = (
    "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    "GPU0\t X \tPHB\t0-63\t0\t\tN/A\nGPU1\tPHB\t X \t0-63\t0\t\tN/A\n\nLegend:\n\n  X    = Self\n"
)
RTX_5090_PEERS = (
    " \tGPU0\tGPU1\t\n GPU0\tX\tGNS\t\n GPU1\tGNS\tX\t\n\nLegend:\n\n  OK   = Status Ok\n"
)
# aikitoria/open-gpu-kernel-modules#13: `topo -p2p p` with a patched driver.
PATCHED_PEERS = (
    " \tGPU0\tGPU1\tGPU2\t\n GPU0\tX\tOK\tOK\t\n GPU1\tOK\tX\tOK\t\n GPU2\tOK\tOK\tX\t\n\nLegend:\n"
)


@pytest.mark.parametrize(
    ("text", "link"),
    [(H100_NVLINK, "nvlink"), (A40_PAIRS, "pcie"), (RTX_5090, "pcie"), ("", None),
     ("\x1b[4mGPU0\x1b[0m\tGPU1\nGPU0\t X \tNV12\nGPU1\tNV12\t X \n", "nvlink")],
)  # fmt: skip
def test_what_joins_gpus(text, link):
    assert parse_gpu_link(text) == link


@pytest.mark.parametrize(
    ("text", "can"),
    [(RTX_5090_PEERS, False), (PATCHED_PEERS, True), ("", None),
     ('Option "-p2p" is missing its value.\n', None)],
)  # fmt: skip
def test_peer_access(text, can):
    assert parse_peer_access(text) is can


# aws/aws-ofi-nccl#141 (Debian's names) and aws/aws-parallelcluster-cookbook#1882 (RPM's).
@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("# EFA installer version: 1.17.2\n# Debug packages installed: no\n# Packages installed:\n"
         "efa-config_1.10_all efa-profile_1.5_all libfabric-aws-bin_1.16.0~amzn3.0_amd64 "
         "libfabric-aws-dev_1.16.0~amzn3.0_amd64 libfabric1-aws_1.16.0~amzn3.0_amd64 "
         "openmpi40-aws_4.1.4-1_amd64 ibacm_41.0-1_amd64 efa_1.16.0-1.amzn1_amd64\n",
         {"libfabric": "1.16.0"}),
        ("# EFA installer version: 1.22.0\nefa-config-1.13-1.el8.noarch "
         "libfabric-aws-1.17.0-1.el8.x86_64 libfabric-aws-devel-1.17.0-1.el8.x86_64\n",
         {"libfabric": "1.17.0"}),
        ("", {}),
    ],
)  # fmt: skip
def test_efa_packages(text, versions):
    assert parse_efa_packages(text) == versions


def test_the_plugin_s_version_by_its_own_words():
    # As it stands in NCCL's log of awslabs/awsome-distributed-ai#261's machines and later ones.
    assert parse_plugin_version(b"\0Initializing aws-ofi-nccl 1.7.3-aws\0") == "1.7.3-aws"
    assert parse_plugin_version(b"Initializing aws-ofi-nccl 1.17.1\0x") == "1.17.1"
    assert parse_plugin_version(b"Initializing aws-ofi-nccl git-6e504db") is None


def test_nccl_s_version_by_its_file():
    assert parse_library_version(["/usr/lib/x86_64-linux-gnu/libnccl.so.2.18.3"]) == "2.18.3"
    assert parse_library_version(["/x/libnccl.so.2", "/x/libnccl-net.so.0.0.0"]) is None


def test_a_gcp_machine_type():
    assert parse_machine_type("projects/1/machineTypes/a2-highgpu-1g\n") == "a2-highgpu-1g"
    assert parse_machine_type("<html>a captive portal</html>") is None


def test_gpus_are_asked_for_their_links_only_where_there_are_several():
    asked = RecordingExecutor({r"topo -m": (0, RTX_5090, ""), r"-p2p r": (0, RTX_5090_PEERS, "")})
    assert probe_fabric.probe_gpu_links(asked, 1) == (None, None)
    assert asked.commands == []
    assert probe_fabric.probe_gpu_links(asked, 2) == ("pcie", False)
    assert probe_fabric.probe_gpu_links(RecordingExecutor(), 2) == (None, None)


def test_elsewhere_than_in_a_cloud_nothing_of_it_is_asked(monkeypatch):
    monkeypatch.setattr(probe_fabric, "_ask_gcp_metadata", lambda: pytest.fail("asked"))
    assert probe_fabric.probe_instance_type(None) is None
    assert probe_fabric.probe_instance_type("azure") is None
    assert probe_fabric.probe_versions(has_gpus=False, cloud=None) == {}


def test_a_metadata_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(probe_fabric, "GCP_METADATA_HOST", "127.0.0.1")
    assert probe_fabric.probe_instance_type("gcp") is None


def test_facts_that_an_earlier_version_kept_are_still_read():
    old = {
        "hostname": "n1", "cores": 8, "gpus": ["NVIDIA H200"], "rdma_ports": [], "user_id": 7,
        "interfaces": [{"name": "eth0", "addresses": ["10.0.0.1/24"]}], "cloud": "aws",
        "probed_at_s": 12.5,
    }  # fmt: skip
    facts = host_facts_from_json(old)
    assert (facts.instance_type, facts.versions, facts.gpu_p2p) == (None, {}, None)
    assert facts.interfaces[0].driver == ""
    again = host_facts_from_json(json.loads(json.dumps(host_facts_as_json(facts))))
    assert again == facts


def test_new_facts_survive_json():
    facts = HostFacts(
        "n", 1, instance_type="p4d.24xlarge", versions={"nccl": "2.27.3"}, gpu_link="nvlink",
        gpu_p2p=True,
    )  # fmt: skip
    assert host_facts_from_json(json.loads(json.dumps(host_facts_as_json(facts)))) == facts


def test_an_open_mpi_with_and_without_ucx(tmp_path):
    def install(name):
        library = tmp_path / name / "lib"
        library.mkdir(parents=True)
        (tmp_path / name / "bin").mkdir()
        return library, str(tmp_path / name / "bin" / "mpirun")

    plain, plain_mpirun = install("plain")
    (plain / "libmpi.so").write_bytes(b"\0mca_pml_ob1_component\0")
    whole, whole_mpirun = install("whole")
    (whole / "libmpi.so").write_bytes(b"\0mca_pml_ucx_component\0")
    parts, parts_mpirun = install("parts")
    (parts / "openmpi").mkdir()
    (parts / "openmpi" / "mca_pml_ucx.so").touch()
    assert [probe_ucx(m) for m in (plain_mpirun, whole_mpirun, parts_mpirun)] == [False, True, True]
    assert not probe_ucx(str(tmp_path / "none" / "bin" / "mpirun"))
