"""What real fabrics and PCI buses showed, and where that is published. Shortened, never altered."""

# Contents of /sys/class/infiniband/*/ports/*/{state,rate,link_layer} as ibstatus prints them.
# Azure/azhpc-diagnostics, Linux/test/samples/ibstatus.out, an Azure machine with HDR InfiniBand:
AZURE_PORTS = (
    ("mlx5_an0", "4: ACTIVE", "40 Gb/sec (4X QDR)", "Ethernet"),
    ("mlx5_ib0", "4: ACTIVE", "200 Gb/sec (4X HDR)", "InfiniBand"),
)
# A RoCE card with one cable pulled (a blog post on NFS over RDMA):
ROCE_ONE_DOWN = (
    ("mlx5_0", "1: DOWN", "100 Gb/sec (4X EDR)", "Ethernet"),
    ("mlx5_1", "4: ACTIVE", "100 Gb/sec (4X EDR)", "Ethernet"),
)

# ``fi_info --version`` on an instance with EFA (a guide to EFA on EKS), and a build of one's own
# (a guide to libfabric).
FI_INFO_EFA = """\
/opt/amazon/efa/bin/fi_info: 1.22.0amzn5.0
libfabric: 1.22.0amzn5.0
libfabric api: 1.22
"""
FI_INFO_OWN = """\
fi_info: 1.21.0a1
libfabric: 1.21.0a1
libfabric api: 1.20
"""
# What the plugin prints when NCCL loads it: two users' logs.
OFI_NCCL_NEW = b"[0] NCCL INFO NET/OFI Initializing aws-ofi-nccl 1.16.2"
OFI_NCCL_OLD = b"[0] NCCL INFO NET/OFI Using aws-ofi-nccl 1.5.0aws"

# A public hardware listing of a machine with a PEX 8724, ``lspci -vvv``: a PLX switch, ACS off.
PLX_ACS_OFF = """\
02:08.0 PCI bridge: PLX Technology, Inc. PEX 8724 24-Lane, 6-Port PCI Express Gen 3 (8 GT/s) \
Switch, 19 x 19mm FCBGA (rev ca) (prog-if 00 [Normal decode])
        Subsystem: PLX Technology, Inc. PEX 8724 24-Lane, 6-Port PCI Express Gen 3 (8 GT/s) \
Switch, 19 x 19mm FCBGA
        Latency: 0, Cache Line Size: 64 bytes
        Capabilities: [f24 v1] Access Control Services
                ACSCap: SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl+ \
DirectTrans+
                ACSCtl: SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- \
DirectTrans-
        Kernel driver in use: pcieport
"""
# linux-pci, 2025-07-08, "Fix incorrect iommu_groups with PCIe switches": an EPYC with ACS on.
MILAN_ACS_ON = """\
40:01.1 PCI bridge: Advanced Micro Devices, Inc. [AMD] Starship/Matisse GPP Bridge (prog-if 00 \
[Normal decode])
        Capabilities: [2a0 v1] Access Control Services
                ACSCap: SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- \
DirectTrans+
                ACSCtl: SrcValid- TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- \
DirectTrans-
40:01.3 PCI bridge: Advanced Micro Devices, Inc. [AMD] Starship/Matisse GPP Bridge (prog-if 00 \
[Normal decode])
        Capabilities: [2a0 v1] Access Control Services
                ACSCap: SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- \
DirectTrans+
                ACSCtl: SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- \
DirectTrans-
"""
