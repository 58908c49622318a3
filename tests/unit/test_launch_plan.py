"""The plan: whole command lines for each MPI, placement, network, forwarding and reasons."""

import socket
from dataclasses import replace

import pytest

from hpctrain.config.schema import LaunchConfig
from hpctrain.errors import PlanError
from hpctrain.facts import Facts, HostFacts, Interface, RdmaPort
from hpctrain.hosts import Host, parse_host_list, parse_hostfile
from hpctrain.launch.meeting import find_free_port, plan_meeting_port
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.request import LaunchRequest

LAPTOP = HostFacts("laptop", cores=4)
HEAD = HostFacts(
    "head", cores=8,
    interfaces=(
        Interface("lo", ("127.0.0.1/8", "::1/128")),
        Interface("docker0", ("172.17.0.1/16",)),
        Interface("eth0", ("10.0.0.1/24", "fe80::1/64")),
    ),
)  # fmt: skip
NODE = HostFacts("n", cores=8, interfaces=(Interface("ens5", ("10.0.0.9/24",)),))
GPU_NODE = replace(NODE, gpus=("H100",) * 8)
SHIM = ("/venv/bin/python", "-m", "hpctrain.launch.shim", "--")


def facts(flavour="openmpi5", launcher=LAPTOP, **more):
    versions = {"openmpi4": "4.1.8", "openmpi5": "5.0.11", "mpich": "4.3.2", "intelmpi": "2021.18"}
    return Facts(launcher, flavour, versions[flavour], "/opt/mpi/bin/mpirun", "PATH", **more)


def request(*program, environ=None, **more):
    more.setdefault("python", "/venv/bin/python")
    path = {"PATH": "/venv/bin:/usr/bin"}
    return LaunchRequest(program or ("true",), environ={**path, **(environ or {})}, **more)


def remote(flavour="openmpi5", **more):
    """Facts and request for two nodes beside the launcher."""
    more.setdefault("addresses", {"n1": ("10.0.0.11",), "n2": ("10.0.0.12",)})
    hosts = parse_host_list("n1:2,n2:2").hosts
    return request("train", hosts=hosts, run_path="runs/r"), facts(flavour, HEAD, **more)


LOCAL_ARGV = {
    "openmpi4": "/opt/mpi/bin/mpirun --np 2 --host localhost:2 --bind-to none --map-by slot "
    "--mca pml ob1 --mca btl self,vader,tcp --mca mpi_yield_when_idle 1",
    "openmpi5": "/opt/mpi/bin/mpirun --np 2 --host localhost:2 --bind-to none --map-by slot "
    "--mca pml ob1 --mca btl self,sm,tcp --mca mpi_yield_when_idle 1",
    "mpich": "/opt/mpi/bin/mpirun -n 2 -hosts localhost:2 -bind-to none",
    "intelmpi": "/opt/mpi/bin/mpiexec.hydra -n 2 -hosts localhost -ppn 2",
}
LOCAL_ENV = {
    "openmpi4": {},
    "openmpi5": {},
    "mpich": {
        "MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
    },
    "intelmpi": {"I_MPI_PIN": "0", "FI_PROVIDER": "tcp", "I_MPI_THREAD_YIELD": "2"},
}  # fmt: skip
OUR_ENV = {
    "HPCTRAIN_SIZE": "2", "HPCTRAIN_GRACE_S": "5", "HPCTRAIN_CHANNEL": "",
    "HPCTRAIN_SECRET": "", "HPCTRAIN_ATTEMPT": "", "HPCTRAIN_ATTEMPT_NUMBER": "",
    "HPCTRAIN_CUT_OFF_S": "60",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(plan_meeting_port("runs/run")),
}  # fmt: skip


@pytest.mark.parametrize("flavour", LOCAL_ARGV)
def test_whole_command_on_one_machine(flavour):
    plan = plan_launch(request("echo", "a b", np=2), facts(flavour))
    assert plan.command.argv == (*LOCAL_ARGV[flavour].split(), *SHIM, "echo", "a b")
    assert plan.command.env == {**OUR_ENV, **LOCAL_ENV[flavour]}
    assert plan.files == {}
    assert plan.remote_hosts == ()
    assert plan.channel_address == "127.0.0.1"


FORWARDED = "ATTEMPT ATTEMPT_NUMBER CHANNEL CUT_OFF_S GRACE_S SECRET SIZE SUBNET"
FORWARDED = [
    *(f"HPCTRAIN_{name}" for name in FORWARDED.split()),
    "MASTER_ADDR",
    "MASTER_PORT",
    "PATH",
]
X_FLAGS = " ".join(f"-x {name}" for name in FORWARDED)
REMOTE_ARGV = {
    "openmpi4": "/opt/mpi/bin/mpirun --np 4 --hostfile runs/r/hostfile --bind-to none "
    "--map-by slot --mca pml ob1 --mca btl self,vader,tcp --mca btl_tcp_if_include 10.0.0.0/24 "
    "--mca oob_tcp_if_include 10.0.0.0/24 --mca mpi_yield_when_idle 1 "
    "--mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 "
    "--mca oob_tcp_keepalive_probes 3 --mca plm_rsh_agent|ssh -F runs/r/ssh_config| " + X_FLAGS,
    "openmpi5": "/opt/mpi/bin/mpirun --np 4 --hostfile runs/r/hostfile --bind-to none "
    "--map-by slot --mca pml ob1 --mca btl self,sm,tcp --mca btl_tcp_if_include 10.0.0.0/24 "
    "--prtemca prte_if_include 10.0.0.0/24 --mca mpi_yield_when_idle 1 "
    "--prtemca oob_tcp_keepalive_time 5 --prtemca oob_tcp_keepalive_intvl 2 "
    "--prtemca oob_tcp_keepalive_probes 3 --prtemca plm_ssh_agent|ssh -F runs/r/ssh_config| "
    + X_FLAGS,
    "mpich": "/opt/mpi/bin/mpirun -n 4 -f runs/r/hostfile -bind-to none -launcher ssh -genvlist "
    + ",".join(sorted([*FORWARDED, "FI_PROVIDER", "HYDRA_LAUNCHER_EXTRA_ARGS",
                       "MPIR_CVAR_CH4_NETMOD", "MPIR_CVAR_ENABLE_HEAVY_YIELD"])),
    "intelmpi": "/opt/mpi/bin/mpiexec.hydra -n 4 -machinefile runs/r/hostfile -bootstrap ssh "
    "-genvlist "
    + ",".join(sorted([*FORWARDED, "FI_PROVIDER", "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS",
                       "I_MPI_PIN", "I_MPI_THREAD_YIELD"])),
}  # fmt: skip
SLOT_LINES = {"openmpi4": "n1 slots=2\nn2 slots=2\n", "mpich": "n1:2\nn2:2\n"}
SLOT_LINES |= {"openmpi5": SLOT_LINES["openmpi4"], "intelmpi": SLOT_LINES["mpich"]}


def words(text):
    """Split at spaces, but for what stands between bars."""
    parts = text.split("|")
    return tuple(w for i, p in enumerate(parts) for w in ([p] if i % 2 else p.split()))


@pytest.mark.parametrize("flavour", REMOTE_ARGV)
def test_whole_command_on_two_nodes(flavour):
    plan = plan_launch(*remote(flavour))
    assert plan.command.argv == (*words(REMOTE_ARGV[flavour]), *SHIM, "train")
    assert plan.files["runs/r/hostfile"] == SLOT_LINES[flavour]
    assert "ServerAliveInterval 5" in plan.files["runs/r/ssh_config"]
    assert plan.channel_address == "10.0.0.1"
    assert plan.rank_hosts == ("n1", "n1", "n2", "n2")


@pytest.mark.parametrize("flavour", REMOTE_ARGV)
def test_no_value_of_a_variable_stands_in_the_command_line(flavour):
    asked, known = remote(flavour)
    asked = replace(asked, environ={**asked.environ, "WANDB_API_KEY": "s3cret"})
    plan = plan_launch(asked, known)
    assert any("WANDB_API_KEY" in word for word in plan.command.argv)
    assert not any("s3cret" in word for word in plan.command.argv)
    assert "s3cret" not in str(plan.reasons)


def test_same_inputs_same_plan():
    assert plan_launch(*remote()) == plan_launch(*remote())


# -- where torch.distributed's ranks meet --------------------------------------------------------


def test_ranks_of_several_hosts_meet_at_the_first_one_s_address_in_the_chosen_network():
    addresses = {"n1": ("192.168.7.11", "10.0.0.11"), "n2": ("10.0.0.12",)}
    asked, known = remote(addresses=addresses)
    plan = plan_launch(asked, known)
    assert plan.command.env["MASTER_ADDR"] == "10.0.0.11"
    assert plan.command.env["MASTER_PORT"] == str(plan.meeting_port)
    assert 20000 <= plan.meeting_port < 32000


def test_runs_of_one_name_in_two_folders_do_not_meet():
    ports = {
        plan_launch(
            request("train", np=2, rank_env={"HPCTRAIN_RUN_PATH": f"{folder}/runs/run"}), facts()
        ).meeting_port
        for folder in ("/home/ada", "/home/eve")
    }
    assert len(ports) == 2


def test_ranks_meet_at_the_launcher_where_rank_0_runs_there():
    hosts = parse_host_list("head:1,n2:2").hosts
    plan = plan_launch(
        request("train", hosts=hosts, run_path="runs/r"),
        facts(launcher=HEAD, addresses={"head": ("127.0.1.1",), "n2": ("10.0.0.12",)}),
    )
    assert plan.command.env["MASTER_ADDR"] == plan.channel_address == "10.0.0.1"


def test_a_meeting_point_of_one_s_own_is_left_alone():
    own = {"MASTER_ADDR": "10.9.9.9", "MASTER_PORT": "29500"}
    plan = plan_launch(request(environ=own, np=2), facts())
    assert not own.keys() & plan.command.env.keys()
    assert plan.meeting_port is None


def test_a_port_in_use_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("", find_free_port(21000)))
        taken.listen()
        port = taken.getsockname()[1]
        assert find_free_port(port) > port


# -- placement -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "np", "placed"),
    [
        ("a:2,b:2", None, {"a": 2, "b": 2}),
        ("a:2,b:2", 3, {"a": 2, "b": 1}),
        ("a:2,b:2", 2, {"a": 2}),
        ("a:1,b:4", 4, {"a": 1, "b": 3}),
    ],
)
def test_slots_are_filled_in_order(hosts, np, placed):
    asked = request(hosts=parse_host_list(hosts).hosts, np=np)
    plan = plan_launch(asked, facts(launcher=HEAD))
    assert {place.host: place.ranks for place in plan.placement} == placed


def test_more_ranks_than_slots_is_refused_with_the_numbers_and_the_fix():
    asked = request(hosts=parse_host_list("a:2,b:2").hosts, np=5)
    with pytest.raises(PlanError, match=r"got 5; expected at most 4 \(a:2, b:2\).*--oversubscribe"):
        plan_launch(asked, facts(launcher=HEAD))


def test_up_to_max_slots_it_warns():
    hosts = parse_hostfile("a slots=2 max_slots=3\nb slots=2 max_slots=4").hosts
    plan = plan_launch(request(hosts=hosts, np=7), facts(launcher=HEAD))
    assert {place.host: place.ranks for place in plan.placement} == {"a": 3, "b": 4}
    assert any("7 ranks share 4 slots" in warning for warning in plan.warnings)
    with pytest.raises(PlanError, match="got 8; expected at most 7"):
        plan_launch(request(hosts=hosts, np=8, oversubscribe=True), facts(launcher=HEAD))


def test_oversubscribing_goes_round_the_hosts():
    hosts = parse_host_list("a:1,b:2").hosts
    plan = plan_launch(request(hosts=hosts, np=7, oversubscribe=True), facts(launcher=HEAD))
    assert {place.host: place.ranks for place in plan.placement} == {"a": 3, "b": 4}


@pytest.mark.parametrize(
    ("gpus", "counts_cores", "slots"),
    [((), False, 4), (("T4", "T4"), False, 2), (("T4",), True, 4)],
)
def test_local_slots_are_gpus_else_cores(gpus, counts_cores, slots):
    plan = plan_launch(
        request(counts_cores=counts_cores), facts(launcher=replace(LAPTOP, gpus=gpus))
    )
    assert plan.np == slots


def test_slots_of_a_host_that_was_asked_and_of_one_that_was_not():
    hosts = parse_host_list("n1,n2").hosts
    plan = plan_launch(request(hosts=hosts), facts(launcher=HEAD, hosts={"n1": GPU_NODE}))
    assert {place.host: place.ranks for place in plan.placement} == {"n1": 8, "n2": 1}
    assert any("n2 has no slots=" in warning for warning in plan.warnings)


def test_names_of_this_machine_are_one_host():
    own = replace(HEAD, cores=4)
    hosts = parse_host_list("localhost,head,localhost.localdomain").hosts
    plan = plan_launch(request(hosts=hosts), facts(launcher=own))
    assert [(p.host, p.ranks) for p in plan.placement] == [("localhost", 4)]
    given = parse_host_list("localhost:2,head:1,n1:1").hosts
    plan = plan_launch(request(hosts=given), facts(launcher=own))
    assert [(p.host, p.ranks) for p in plan.placement] == [("localhost", 3), ("n1", 1)]


def test_what_was_never_asked_or_long_ago_is_said():
    asked, known = remote()
    plan = plan_launch(asked, known)
    assert any("n1, n2: never asked" in warning for warning in plan.warnings)
    told = {reason.setting: reason.fact for reason in plan.reasons}
    assert told["--mca pml"] == "no active RDMA port known; 2 hosts were never asked"
    week_old = {"n1": replace(NODE, probed_at_s=1e9), "n2": replace(NODE, probed_at_s=1e9)}
    plan = plan_launch(asked, replace(known, hosts=week_old, now_s=1e9 + 7 * 86400))
    assert any("asked 7 days ago" in warning for warning in plan.warnings)
    fresh = plan_launch(asked, replace(known, hosts=week_old, now_s=1e9 + 60))
    assert fresh.warnings == ()


def test_a_subnet_for_one_machine_is_ignored_and_said():
    plan = plan_launch(request(np=1, launch=LaunchConfig(subnet="10.9.0.0/16")), facts())
    assert plan.warnings == ("launch.subnet is ignored: all ranks are on this machine.",)


# -- network -------------------------------------------------------------------------------------


def argv_of(plan):
    return " ".join(plan.command.argv)


def test_docker0_is_never_chosen():
    addresses = {"n1": ("172.17.0.2",), "n2": ("172.17.0.3",)}
    plan = plan_launch(*remote(addresses=addresses))
    assert "if_include" not in argv_of(plan)
    assert any("launch.subnet" in warning for warning in plan.warnings)


def test_the_network_is_one_that_all_asked_hosts_have():
    plan = plan_launch(*remote(addresses={}, hosts={"n1": NODE, "n2": NODE}))
    assert "--mca btl_tcp_if_include 10.0.0.0/24" in argv_of(plan)


GOOGLE = replace(HEAD, interfaces=(Interface("docker0", ("172.17.0.1/16",)),
                                   Interface("ens4", ("10.128.0.2/32",))))  # fmt: skip


@pytest.mark.parametrize("known_by", ["facts", "names"])
def test_hosts_with_addresses_of_32_bits_share_the_smallest_network_that_holds_them(known_by):
    def at(number):
        return replace(GOOGLE, interfaces=(Interface("ens4", (f"10.128.0.{number}/32",)),))

    known = {
        "facts": {"addresses": {}, "hosts": {"n1": at(5), "n2": at(6)}},
        "names": {"addresses": {"n1": ("10.128.0.5",), "n2": ("10.128.0.6",)}},
    }
    asked, given = remote(**known[known_by])
    plan = plan_launch(asked, replace(given, launcher=GOOGLE))
    assert "--mca btl_tcp_if_include 10.128.0.0/29" in argv_of(plan)
    assert plan.channel_address == "10.128.0.2"
    assert not any("no network" in warning for warning in plan.warnings)


@pytest.mark.parametrize("elsewhere", ["198.51.100.7", "172.16.0.4", "fd00::5"])
def test_no_network_is_made_up_around_hosts_that_are_far_apart(elsewhere):
    asked, given = remote(addresses={"n1": ("10.128.0.5",), "n2": (elsewhere,)})
    plan = plan_launch(asked, replace(given, launcher=GOOGLE))
    assert "if_include" not in argv_of(plan)
    assert any("no network is known" in warning for warning in plan.warnings)


def test_prrte_gets_a_name_where_it_is_the_same_everywhere():
    same = replace(HEAD, interfaces=(Interface("eth0", ("10.0.0.9/24",)),))
    plan = plan_launch(*remote(addresses={}, hosts={"n1": same, "n2": same}))
    assert "--prtemca prte_if_include eth0" in argv_of(plan)


def test_prrte_gets_no_cidr_beside_global_ipv6():
    dual = replace(HEAD, interfaces=(Interface("eth0", ("10.0.0.1/24", "fd00::1/64")),))
    asked, known = remote()
    plan = plan_launch(asked, replace(known, launcher=dual))
    assert "prte_if_include" not in argv_of(plan)
    assert "btl_tcp_if_include 10.0.0.0/24" in argv_of(plan)


@pytest.mark.parametrize(
    ("subnet", "words"), [("10.0.0.0/33", "no network"), ("192.168.7.0/24", "no address in it")]
)
def test_a_wrong_subnet_is_refused(subnet, words):
    asked, known = remote()
    asked = replace(asked, launch=LaunchConfig(subnet=subnet))
    with pytest.raises(PlanError, match=words):
        plan_launch(asked, known)


def test_ipv6_hosts_get_an_alias():
    hosts = parse_hostfile("fd00::7 slots=2").hosts
    plan = plan_launch(request(hosts=hosts, run_path="runs/r"), facts(launcher=HEAD))
    assert plan.files["runs/r/hostfile"] == "ip6-fd00--7 slots=2\n"
    assert "Host ip6-fd00--7\n  HostName fd00::7\n" in plan.files["runs/r/ssh_config"]


def test_users_ports_and_the_ssh_config_beside_the_hostfile():
    hosts = (Host("n1", 1, user="ada", port=2222),)
    asked = request(hosts=hosts, run_path="runs/r", ssh_configs=("/etc/cluster/ssh_config",))
    text = plan_launch(asked, facts(launcher=HEAD)).files["runs/r/ssh_config"]
    assert "Host n1\n  User ada\n  Port 2222\n" in text
    includes = [line for line in text.splitlines() if line.startswith("Include")]
    assert includes[0] == 'Include "/etc/cluster/ssh_config"'
    assert len(includes) == 3


def test_remote_hosts_without_ssh_or_with_a_path_that_mpirun_splits():
    asked, known = remote()
    with pytest.raises(PlanError, match="openssh-client") as caught:
        plan_launch(replace(asked, run_path="my runs/r"), replace(known, has_ssh=False))
    assert len(caught.value.messages) == 2


# -- rules ---------------------------------------------------------------------------------------


def test_root_is_told_to_open_mpi_alone():
    root = replace(LAPTOP, user_id=0)
    assert "--allow-run-as-root" in argv_of(plan_launch(request(np=1), facts(launcher=root)))
    assert "root" not in argv_of(plan_launch(request(np=1), facts("mpich", launcher=root)))


def test_gpus_wait_busily():
    plan = plan_launch(request(np=1), facts(launcher=replace(LAPTOP, gpus=("H100",))))
    assert "yield" not in argv_of(plan)


def test_open_mpi_4_without_ssh_is_told_not_to_look_for_it():
    plan = plan_launch(request(np=1), facts("openmpi4", has_ssh=False))
    assert "--mca plm isolated" in argv_of(plan)


def test_many_hosts_are_not_started_through_each_other():
    hosts = parse_host_list("n[1-64]:1").hosts
    plan = plan_launch(request(hosts=hosts), facts(launcher=HEAD))
    assert "--prtemca plm_ssh_no_tree_spawn 1" in argv_of(plan)
    few = plan_launch(request(hosts=hosts[:63]), facts(launcher=HEAD))
    assert "no_tree_spawn" not in argv_of(few)


INFINIBAND = RdmaPort("mlx5_0", 1, "InfiniBand")
EFA = RdmaPort("rdmap0s6", 1, "Unspecified")


def on_fabric(port, cloud=None, gpus=8):
    node = replace(HEAD, gpus=("A100",) * gpus, rdma_ports=(port,), cloud=cloud)
    asked, known = remote(hosts={"n1": node, "n2": node})
    return plan_launch(asked, replace(known, launcher=node))


def test_fabric_rules_need_the_fabric():
    assert on_fabric(INFINIBAND).command.env["NCCL_NET"] == "IB"
    assert on_fabric(EFA, "aws").command.env["FI_EFA_USE_HUGE_PAGE"] == "0"
    assert "FI_EFA_USE_HUGE_PAGE" not in on_fabric(EFA).command.env
    assert "NCCL_NET" not in on_fabric(EFA, "aws").command.env
    plain = plan_launch(*remote(hosts={"n1": GPU_NODE, "n2": GPU_NODE})).command.env
    assert not any(name.startswith(("NCCL", "FI_")) for name in plain)


def test_ranks_on_cpus_keep_the_fabric_that_mpi_finds():
    assert "--mca pml" not in argv_of(on_fabric(INFINIBAND, gpus=0))
    assert "--mca pml ob1" in argv_of(on_fabric(INFINIBAND))


def test_what_the_user_set_is_left_alone_and_said():
    environ = {"OMPI_MCA_btl": "tcp,self", "OMPI_MCA_mpi_yield_when_idle": "0"}
    plan = plan_launch(request(np=1, environ=environ), facts())
    assert "--mca btl" not in argv_of(plan)
    assert "yield" not in argv_of(plan)
    assert "--mca pml ob1" in argv_of(plan)
    told = {reason.setting: reason for reason in plan.reasons}
    assert told["OMPI_MCA_btl"].value == "tcp,self"
    assert "yours" in told["OMPI_MCA_btl"].rule


def test_nccl_timeout_is_never_passed_on():
    asked, known = remote()
    asked = replace(asked, environ={**asked.environ, "NCCL_TIMEOUT": "60", "NCCL_DEBUG": "INFO"})
    plan = plan_launch(asked, known)
    assert "NCCL_TIMEOUT" not in plan.command.argv
    assert "NCCL_DEBUG" in plan.command.argv
    assert any("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS" in warning for warning in plan.warnings)


def test_forwarding_more_by_pattern():
    asked, known = remote()
    environ = {**asked.environ, "MY_A": "1", "MY_B": "2", "SSH_AUTH_SOCK": "/x"}
    launch = LaunchConfig(forward=("MY_*", "NO_SUCH"))
    plan = plan_launch(replace(asked, environ=environ, launch=launch), known)
    assert {"MY_A", "MY_B"} <= set(plan.command.argv)
    assert "SSH_AUTH_SOCK" not in plan.command.argv
    assert any("NO_SUCH" in warning for warning in plan.warnings)


def test_the_environment_of_hpctrain_is_found_where_none_is_active():
    plan = plan_launch(request(environ={"PATH": "/usr/bin"}, np=1), facts())
    assert plan.command.env["PATH"] == "/venv/bin:/usr/bin"
    active = {"PATH": "/usr/bin", "VIRTUAL_ENV": "/other"}
    assert "PATH" not in plan_launch(request(environ=active, np=1), facts()).command.env


def test_configuration_reaches_the_ranks():
    launch = LaunchConfig(env={"A": "1"}, threads_per_rank=3, grace_s=9.0, mpirun_args=("--tag",))
    plan = plan_launch(request(np=1, launch=launch, rank_env={"HPCTRAIN_RUN": "x"}), facts())
    wanted = {"A": "1", "HPCTRAIN_THREADS": "3", "HPCTRAIN_GRACE_S": "9", "HPCTRAIN_RUN": "x"}
    assert wanted.items() <= plan.command.env.items()
    assert plan.command.argv[-6:] == ("--tag", *SHIM, "true")


@pytest.mark.parametrize("flavour", REMOTE_ARGV)
def test_every_flag_and_variable_has_a_reason(flavour):
    asked, known = remote(flavour)
    launch = LaunchConfig(env={"A": "1"}, threads_per_rank=2)
    plan = plan_launch(replace(asked, launch=launch, environ={"PATH": "/bin"}), known)
    explained = " ".join(f"{reason.setting} {reason.value}" for reason in plan.reasons)
    mpirun_part = plan.command.argv[1 : plan.command.argv.index("/venv/bin/python")]
    unexplained = [word for word in mpirun_part if word.split(",")[0] not in explained]
    unexplained += [name for name in plan.command.env if name not in explained]
    assert unexplained == []
    assert all(reason.rule and reason.fact and reason.source for reason in plan.reasons)


@pytest.mark.parametrize("np", [1, 2])
def test_hosts_that_take_no_rank_can_be_reached_after_a_failure(np):
    """By their user and port, also where the first attempt runs on this machine alone."""
    hosts = parse_hostfile("head slots=1\nn1 slots=1\nn2 slots=1 user=ada port=2222\n").hosts
    known = facts(launcher=HEAD, addresses={"n1": ("10.0.0.11",), "n2": ("10.0.0.12",)})
    plan = plan_launch(request(hosts=hosts, np=np, run_path="runs/r"), known)
    assert len(plan.placement) == np
    assert plan.ssh_options == ("-F", "runs/r/ssh_config")
    assert "Host n2\n  User ada\n  Port 2222\n" in plan.files["runs/r/ssh_config"]
    assert any("ssh_config" in word for word in plan.command.argv) == (np == 2)
