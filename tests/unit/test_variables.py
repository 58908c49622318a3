"""`hpctrain env explain`: which variable is in force, who set it, and what is wrong with it."""

import json
from dataclasses import replace

import pytest
from facts_of import A3_HIGHGPU, ETHERNET, INFINIBAND, LAPTOP, P4D_EFA

from hpctrain.config.schema import LaunchConfig
from hpctrain.hosts import parse_host_list
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.request import LaunchRequest
from hpctrain.variables.explain import Variable, explain_variables
from hpctrain.variables.files import parse_mca_params, parse_nccl_conf
from hpctrain.variables.findings import find_differences, find_problems
from hpctrain.variables.host import HostVariables, host_variables_from_json, probe_variables
from hpctrain.variables.names import known_names, why_unknown

HOME, MPI = "/home/ada", "/opt/mpi"


def explain(fact_set, host=None, shell=None, launch_env=None, **launch):
    """Return name → variable of a host of a fact set."""
    shell = {"PATH": "/venv/bin", **(shell or {})}
    asked = LaunchRequest(
        ("train",), hosts=parse_host_list(fact_set.hosts).hosts if fact_set.hosts else None,
        np=fact_set.np, run_path="runs/r", python="/venv/bin/python", environ=shell,
        launch=LaunchConfig(env=launch_env or {}, **launch),
    )  # fmt: skip
    plan = plan_launch(asked, fact_set.facts)
    found = explain_variables(host or HostVariables(home=HOME), plan, shell, launch_env or {}, MPI)
    return {variable.name: variable for variable in found}


def problems(facts=None, interfaces=(), **values):
    variables = [Variable(name=name, value=value, origin="shell") for name, value in values.items()]
    return {(f.kind, f.name) for f in find_problems(variables, interfaces, facts)}


# -- who set it ----------------------------------------------------------------------------------


def test_a_rule_s_variable_names_rule_and_source():
    found = explain(INFINIBAND)["NCCL_NET"]
    assert (found.value, found.origin) == ("IB", "hpctrain's rule")
    assert "silent fall back" in found.rule
    assert "NCCL 2.30 user guide" in found.source


def test_mpirun_s_flags_are_variables_too():
    found = explain(ETHERNET)
    assert found["OMPI_MCA_btl_tcp_if_include"].flag == "--mca btl_tcp_if_include"
    assert found["OMPI_MCA_btl_tcp_if_include"].value == "10.1.0.0/24"
    own = explain(ETHERNET, mpirun_args=("--mca", "btl_base_verbose", "30"))
    assert own["OMPI_MCA_btl_base_verbose"].origin == "launch.mpirun_args"


def test_the_user_s_own_beats_a_rule_and_says_what_the_rule_would_do():
    found = explain(INFINIBAND, shell={"NCCL_NET": "Socket"})["NCCL_NET"]
    assert (found.value, found.origin) == ("Socket", "shell")
    assert "yours, left alone" in found.rule
    configured = explain(INFINIBAND, launch_env={"NCCL_NET": "Socket"})["NCCL_NET"]
    assert (configured.value, configured.origin) == ("Socket", "launch.env")


def test_what_the_shim_decides_is_shown_until_somebody_decides_it():
    decided = explain(ETHERNET)["NCCL_SOCKET_IFNAME"]
    assert (decided.value, decided.origin) == ("(the interface's name)", "rank shim")
    own = explain(ETHERNET, shell={"NCCL_SOCKET_IFNAME": "eno1"})["NCCL_SOCKET_IFNAME"]
    assert (own.value, own.origin) == ("eno1", "shell")


def test_a_file_of_nccl_s_own_counts_where_nothing_else_is_set():
    host = HostVariables(home=HOME, config={"/etc/nccl.conf": "NCCL_DEBUG=WARN\nNCCL_NET=Socket\n"})
    found = explain(INFINIBAND, host)
    assert (found["NCCL_DEBUG"].value, found["NCCL_DEBUG"].origin) == ("WARN", "/etc/nccl.conf")
    assert found["NCCL_NET"].value == "IB"
    assert found["NCCL_NET"].hides == ("/etc/nccl.conf: Socket",)


def test_the_user_s_file_beats_the_system_s_and_a_named_one_stands_in_for_it():
    files = {
        "/etc/nccl.conf": "NCCL_DEBUG=WARN\n",
        f"{HOME}/.nccl.conf": "NCCL_DEBUG=INFO\n",
        "/x/nccl.conf": "NCCL_DEBUG=TRACE\n",
    }
    host = HostVariables(home=HOME, config=files)
    assert explain(LAPTOP, host)["NCCL_DEBUG"].origin == f"{HOME}/.nccl.conf"
    named = explain(LAPTOP, host, shell={"NCCL_CONF_FILE": "/x/nccl.conf"})["NCCL_DEBUG"]
    assert (named.value, named.hides) == ("TRACE", ("/etc/nccl.conf: WARN",))


def test_open_mpi_s_files_are_its_variables():
    host = HostVariables(
        home=HOME,
        config={
            f"{HOME}/.openmpi/mca-params.conf": "btl_tcp_if_exclude = docker0\n",
            f"{MPI}/etc/openmpi-mca-params.conf": "btl_tcp_if_exclude = lo\nmpi_leak=1\n",
        },
    )
    found = explain(ETHERNET, host)
    assert found["OMPI_MCA_btl_tcp_if_exclude"].value == "docker0"
    assert found["OMPI_MCA_mpi_leak"].origin == f"{MPI}/etc/openmpi-mca-params.conf"


def test_where_a_login_s_variable_comes_from():
    host = HostVariables(
        home=HOME,
        environ={"NCCL_DEBUG": "INFO", "UCX_TLS": "tcp", "FI_PROVIDER": "tcp"},
        profiles={"/etc/profile.d/nccl.sh": {"NCCL_DEBUG": "INFO"}},
        first_process={"UCX_TLS": "tcp"},
    )
    found = explain(LAPTOP, host)
    assert found["NCCL_DEBUG"].origin == "/etc/profile.d/nccl.sh"
    assert found["UCX_TLS"].origin == "image (process 1 has it)"
    assert found["FI_PROVIDER"].origin == "login there"


def test_what_mpirun_tells_each_rank_is_nobody_s_setting():
    found = explain(LAPTOP, shell={"OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3", "HOME": "/x"})
    assert not {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "HOME", "PATH"} & set(found)


# -- files ---------------------------------------------------------------------------------------


def test_a_nccl_conf_is_read_as_nccl_reads_it():
    """Source: NCCL, src/misc/param.cc, setEnvFile: '#' at the start alone, nothing stripped."""
    text = "#NCCL_A=1\n #NCCL_B=2\nNCCL_C= x # no comment\nno equals\nNCCL_D=1\nNCCL_D=2\n"
    found = parse_nccl_conf(text)
    assert found == {" #NCCL_B": "2", "NCCL_C": " x # no comment", "NCCL_D": "1"}


def test_mca_parameters_may_have_spaces():
    found = parse_mca_params("  # x\n  pml =  ucx \nbtl=\n", "OMPI_MCA_")
    assert found == {"OMPI_MCA_pml": "ucx", "OMPI_MCA_btl": ""}


def test_this_host_is_asked_and_only_what_libraries_read_leaves_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".nccl.conf").write_text("NCCL_DEBUG=WARN\n")
    (tmp_path / ".bashrc").write_text("export NCCL_NET=IB SECRET=x\nexport UCX_TLS=tcp\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "openmpi-mca-params.conf").write_text("btl = tcp\n")
    host = probe_variables({"NCCL_ALGO": "Ring", "WANDB_API_KEY": "s3cret"}, str(tmp_path))
    assert host.environ == {"NCCL_ALGO": "Ring"}
    assert host.config[f"{tmp_path}/.nccl.conf"] == "NCCL_DEBUG=WARN\n"
    assert f"{tmp_path}/etc/openmpi-mca-params.conf" in host.config
    assert host.profiles[f"{tmp_path}/.bashrc"] == {"UCX_TLS": "tcp"}
    assert "lo" in host.interfaces
    from dataclasses import asdict

    assert host_variables_from_json(json.loads(json.dumps(asdict(host)))) == host


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NCCL_TIMEOUT", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"),
        ("NCCL_SOCKET_IFNAM", "Did you mean 'NCCL_SOCKET_IFNAME'?"),
        ("NCCL_IB_GIDINDEX", "Did you mean 'NCCL_IB_GID_INDEX'?"),
        ("HOROVOD_FUSION_TRESHOLD", "Did you mean 'HOROVOD_FUSION_THRESHOLD'?"),
    ],
)
def test_names_that_nothing_reads(name, words):
    assert words in why_unknown(name)
    assert problems(**{name: "1"}) == {("unknown", name)}


@pytest.mark.parametrize(
    "name",
    [
        "NCCL_DEBUG", "NCCL_IB_HCA", "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME", "NCCL_CONF_FILE",
        "NCCL_SHM_USE_CUDA_MEMCPY", "HOROVOD_CYCLE_TIME", "HOROVOD_STALL_CHECK_TIME_SECONDS",
        "UCX_NET_DEVICES", "FI_PROVIDER", "OMPI_MCA_btl",
    ],
)  # fmt: skip
def test_names_that_are_read(name):
    assert why_unknown(name) == ""


def test_every_variable_that_a_rule_sets_is_known():
    from hpctrain.launch.rules import RULES

    names = [rule.intent.removeprefix("env:") for rule in RULES if rule.intent.startswith("env:")]
    assert [name for name in names if why_unknown(name)] == []


def test_the_lists_are_whole():
    assert len(known_names()["NCCL_"]) > 150
    assert len(known_names()["HOROVOD_"]) > 40


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"OMPI_MCA_btl_tcp_if_include": "a", "OMPI_MCA_btl_tcp_if_exclude": "b"},
         "OMPI_MCA_btl_tcp_if_include"),
        ({"NCCL_IB_DISABLE": "1", "NCCL_NET": "IB"}, "NCCL_IB_DISABLE"),
        ({"NCCL_IB_DISABLE": "1", "NCCL_IB_HCA": "mlx5_0"}, "NCCL_IB_DISABLE"),
        ({"NCCL_NET": "Socket", "NCCL_IB_HCA": "mlx5_0"}, "NCCL_NET"),
        ({"NCCL_SOCKET_NTHREADS": "17"}, "NCCL_SOCKET_NTHREADS"),
        ({"NCCL_SOCKET_NTHREADS": "16", "NCCL_NSOCKS_PERTHREAD": "8"}, "NCCL_SOCKET_NTHREADS"),
        ({"UCX_NET_DEVICES": "mlx5_0:1", "OMPI_MCA_pml": "ob1"}, "UCX_NET_DEVICES"),
    ],
)  # fmt: skip
def test_settings_that_contradict(values, name):
    assert problems(**values) == {("conflict", name)}


@pytest.mark.parametrize(
    "values",
    [
        {"NCCL_IB_DISABLE": "0", "NCCL_NET": "IB"},
        {"NCCL_SOCKET_NTHREADS": "8", "NCCL_NSOCKS_PERTHREAD": "8"},
        {"UCX_NET_DEVICES": "mlx5_0:1", "OMPI_MCA_pml": "ucx"},
        {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_FILE": "/tmp/x.%h.%p"},
        {"NCCL_P2P_DISABLE": "0"},
    ],
)
def test_settings_that_go_together(values):
    assert problems(**values) == set()


def test_what_wants_care():
    assert problems(NCCL_P2P_DISABLE="1") == {("care", "NCCL_P2P_DISABLE")}
    assert problems(RDMAV_FORK_SAFE="1") == {("care", "RDMAV_FORK_SAFE")}
    new = replace(INFINIBAND.facts.launcher, versions={"nccl": "2.27.6"})
    old = replace(new, versions={"nccl": "2.18.5"})
    assert problems(new, NCCL_IB_GID_INDEX="3") == {("care", "NCCL_IB_GID_INDEX")}
    assert problems(old, NCCL_IB_GID_INDEX="3") == set()


@pytest.mark.parametrize(
    ("value", "is_there"),
    [("eth0", True), ("=eth0", True), ("et", True), ("=et", False), ("ens5", False),
     ("ens5,eth", True), ("^docker0", True), ("(the interface's name)", True)],
)  # fmt: skip
def test_an_interface_that_is_not_there(value, is_there):
    found = problems(interfaces=("eth0", "lo"), NCCL_SOCKET_IFNAME=value)
    assert found == (set() if is_there else {("conflict", "NCCL_SOCKET_IFNAME")})


def test_another_cloud_s_variables():
    gcp, aws, none = (s.facts.launcher for s in (A3_HIGHGPU, P4D_EFA, INFINIBAND))
    tcpx = {"NCCL_GPUDIRECTTCPX_SOCKET_IFNAME": "enp6s0"}
    assert problems(gcp, **tcpx) == set()
    assert problems(aws, **tcpx) == {("cloud", "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME")}
    assert problems(none, FI_EFA_USE_HUGE_PAGE="0") == {("cloud", "FI_EFA_USE_HUGE_PAGE")}
    assert problems(aws, FI_EFA_USE_HUGE_PAGE="0", FI_PROVIDER="efa") == set()
    assert problems(none, NCCL_NET="gIB") == {("cloud", "NCCL_NET")}


def test_hosts_that_differ():
    def one(name, value):
        return [Variable(name=name, value=value, origin="shell")]

    found = find_differences({"n1": one("NCCL_ALGO", "Ring"), "n2": one("NCCL_ALGO", "Tree")})
    assert [(f.kind, f.name) for f in found] == [("conflict", "NCCL_ALGO")]
    assert "Ring on n1; Tree on n2" in found[0].text
    names = {"n1": one("NCCL_SOCKET_IFNAME", "a"), "n2": one("NCCL_SOCKET_IFNAME", "b")}
    assert find_differences(names) == []
    assert len(find_differences({"n1": one("NCCL_ALGO", "Ring"), "n2": []})) == 1
