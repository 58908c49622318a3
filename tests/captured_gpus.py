"""What real machines with GPUs printed, and where that is published. Shortened, never altered.

Sections that no parser reads are left out; lines that are here are as they were.
"""

# leptonai/gpud, components/accelerator/nvidia/query/testdata:
# nvidia-smi-query.535.154.05.out.0.valid, 8 x RTX 4090, of which the first two are here. A foreign
# process on the first.
RTX_4090_BUSY = """\
==============NVSMI LOG==============

Timestamp                                 : Sat Jul  6 15:09:26 2024
Driver Version                            : 535.154.05
CUDA Version                              : 12.2

Attached GPUs                             : 8
GPU 00000000:01:00.0
    Product Name                          : NVIDIA GeForce RTX 4090
    Product Brand                         : GeForce
    Addressing Mode                       : None
    MIG Mode
        Current                           : N/A
        Pending                           : N/A
    GPU UUID                              : GPU-313bbff0-b0a0-fd26-4820-0578bdef3a12
    Minor Number                          : 3
    GPU Reset Status
        Reset Required                    : No
        Drain and Reset Recommended       : N/A
    PCI
        Bus                               : 0x01
        Bus Id                            : 00000000:01:00.0
    Performance State                     : P2
    Clocks Event Reasons
        Idle                              : Not Active
        Applications Clocks Setting       : Not Active
        SW Power Cap                      : Not Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Not Active
        Sync Boost                        : Not Active
        SW Thermal Slowdown               : Not Active
        Display Clock Setting             : Not Active
    FB Memory Usage
        Total                             : 24564 MiB
        Reserved                          : 346 MiB
        Used                              : 20328 MiB
        Free                              : 3888 MiB
    BAR1 Memory Usage
        Total                             : 256 MiB
        Used                              : 4 MiB
        Free                              : 252 MiB
    Compute Mode                          : Default
    ECC Mode
        Current                           : Disabled
        Pending                           : Disabled
    ECC Errors
        Volatile
            SRAM Correctable              : N/A
            SRAM Uncorrectable            : N/A
            DRAM Correctable              : N/A
            DRAM Uncorrectable            : N/A
        Aggregate
            SRAM Correctable              : N/A
            SRAM Uncorrectable            : N/A
            DRAM Correctable              : N/A
            DRAM Uncorrectable            : N/A
    Retired Pages
        Single Bit ECC                    : N/A
        Double Bit ECC                    : N/A
        Pending Page Blacklist            : N/A
    Remapped Rows
        Correctable Error                 : 0
        Uncorrectable Error               : 0
        Pending                           : No
        Remapping Failure Occurred        : No
        Bank Remap Availability Histogram
            Max                           : 192 bank(s)
            High                          : 0 bank(s)
            Partial                       : 0 bank(s)
            Low                           : 0 bank(s)
            None                          : 0 bank(s)
    Processes
        GPU instance ID                   : N/A
        Compute instance ID               : N/A
        Process ID                        : 58130
            Type                          : C
            Name                          : /usr/bin/python
            Used GPU Memory               : 20322 MiB

GPU 00000000:23:00.0
    Product Name                          : NVIDIA GeForce RTX 4090
    Product Brand                         : GeForce
    MIG Mode
        Current                           : N/A
        Pending                           : N/A
    GPU UUID                              : GPU-1a287db8-89a4-4cd7-5933-ae53d0c4d4ad
    Minor Number                          : 2
    GPU Reset Status
        Reset Required                    : No
        Drain and Reset Recommended       : N/A
    Performance State                     : P2
    Clocks Event Reasons
        Idle                              : Not Active
        SW Power Cap                      : Not Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Not Active
        SW Thermal Slowdown               : Not Active
    FB Memory Usage
        Total                             : 24564 MiB
        Reserved                          : 346 MiB
        Used                              : 21356 MiB
        Free                              : 2860 MiB
    Compute Mode                          : Default
"""

# Azure/azhpc-diagnostics, Linux/test/samples/nvidia-smi-q.out: 8 x A100-SXM4-40GB, idle; two here.
A100_IDLE = """\

==============NVSMI LOG==============

Timestamp                                 : Mon Oct 25 22:06:14 2021
Driver Version                            : 460.32.03
CUDA Version                              : 11.2

Attached GPUs                             : 8
GPU 00000001:00:00.0
    Product Name                          : A100-SXM4-40GB
    Product Brand                         : Tesla
    MIG Mode
        Current                           : Disabled
        Pending                           : Disabled
    GPU UUID                              : GPU-b01e9f90-c60c-4ad1-2052-154833662357
    Minor Number                          : 0
    GPU Virtualization Mode
        Virtualization Mode               : Pass-Through
        Host VGPU Mode                    : N/A
    Performance State                     : P0
    Clocks Throttle Reasons
        Idle                              : Active
        Applications Clocks Setting       : Not Active
        SW Power Cap                      : Not Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Not Active
        Sync Boost                        : Not Active
        SW Thermal Slowdown               : Not Active
        Display Clock Setting             : Not Active
    FB Memory Usage
        Total                             : 40536 MiB
        Used                              : 0 MiB
        Free                              : 40536 MiB
    Compute Mode                          : Default
    Ecc Mode
        Current                           : Enabled
        Pending                           : Enabled
    ECC Errors
        Volatile
            SRAM Correctable              : 0
            SRAM Uncorrectable            : 0
            DRAM Correctable              : 0
            DRAM Uncorrectable            : 0
        Aggregate
            SRAM Correctable              : 0
            SRAM Uncorrectable            : 0
            DRAM Correctable              : 0
            DRAM Uncorrectable            : 0
    Remapped Rows
        Correctable Error                 : 0
        Uncorrectable Error               : 0
        Pending                           : No
        Remapping Failure Occurred        : No
    Processes                             : None

GPU 00000002:00:00.0
    Product Name                          : A100-SXM4-40GB
    Product Brand                         : Tesla
    MIG Mode
        Current                           : Disabled
        Pending                           : Disabled
    GPU UUID                              : GPU-fccd4a78-556b-7b41-320b-f2a10438c176
    Minor Number                          : 1
    Clocks Throttle Reasons
        Idle                              : Active
        SW Power Cap                      : Not Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Not Active
        SW Thermal Slowdown               : Not Active
    FB Memory Usage
        Total                             : 40536 MiB
        Used                              : 0 MiB
        Free                              : 40536 MiB
    Compute Mode                          : Default
    Processes                             : None
"""

# thamada/nvidia-smi, GH200 (driver 550.127.05): an error in its past, repaired: nothing waits.
GH200_REPAIRED = """\
==============NVSMI LOG==============

Timestamp                                 : Mon Nov 18 09:29:52 2024
Driver Version                            : 550.127.05
CUDA Version                              : 12.4

Attached GPUs                             : 1
GPU 00000000:DD:00.0
    Product Name                          : NVIDIA GH200 480GB
    Product Brand                         : NVIDIA
    MIG Mode
        Current                           : Disabled
        Pending                           : Disabled
    GPU UUID                              : GPU-35d58415-1094-5ad1-64d1-b797587d33a7
    GPU Reset Status
        Reset Required                    : No
        Drain and Reset Recommended       : No
    Clocks Event Reasons
        Idle                              : Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Not Active
        SW Thermal Slowdown               : Not Active
    FB Memory Usage
        Total                             : 97871 MiB
        Reserved                          : 1103 MiB
        Used                              : 2 MiB
        Free                              : 96767 MiB
    Compute Mode                          : Default
    ECC Errors
        Volatile
            SRAM Correctable              : 0
            SRAM Uncorrectable Parity     : 0
            SRAM Uncorrectable SEC-DED    : 0
            DRAM Correctable              : 0
            DRAM Uncorrectable            : 0
        Aggregate
            SRAM Correctable              : 0
            SRAM Uncorrectable Parity     : 0
            SRAM Uncorrectable SEC-DED    : 0
            DRAM Correctable              : 0
            DRAM Uncorrectable            : 1
            SRAM Threshold Exceeded       : No
    Remapped Rows
        Correctable Error                 : 0
        Uncorrectable Error               : 1
        Pending                           : No
        Remapping Failure Occurred        : No
        Bank Remap Availability Histogram
            Max                           : 3071 bank(s)
            High                          : 1 bank(s)
    Processes                             : None
"""

# leptonai/gpud, "HWSlowdownQueryOutput" of its test data (perhaps edited there): an A10 whose power
# brake is on (driver 550.127.05).
A10_POWER_BRAKE = """\
==============NVSMI LOG==============

Timestamp                                 : Wed Jan 22 04:28:41 2025
Driver Version                            : 550.127.05
CUDA Version                              : 12.4

Attached GPUs                             : 1
GPU 00000000:06:00.0
    Product Name                          : NVIDIA A10
    Product Brand                         : NVIDIA
    MIG Mode
        Current                           : N/A
        Pending                           : N/A
    GPU UUID                              : GPU-51ae0086-e1ac-4a20-f062-9caa44e4df6d
    GPU Reset Status
        Reset Required                    : No
        Drain and Reset Recommended       : No
    Performance State                     : P8
    Clocks Event Reasons
        Idle                              : Active
        Applications Clocks Setting       : Not Active
        SW Power Cap                      : Not Active
        HW Slowdown                       : Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Active
        Sync Boost                        : Not Active
        SW Thermal Slowdown               : Not Active
        Display Clock Setting             : Not Active
    Sparse Operation Mode                 : N/A
    FB Memory Usage
        Total                             : 23028 MiB
        Reserved                          : 526 MiB
        Used                              : 1 MiB
        Free                              : 22503 MiB
    Compute Mode                          : Default
    ECC Errors
        Volatile
            SRAM Correctable              : 0
            SRAM Uncorrectable Parity     : 0
            SRAM Uncorrectable SEC-DED    : 0
            DRAM Correctable              : 0
            DRAM Uncorrectable            : 0
    Processes                             : None
"""

# l4rz.net, "Dell iDRAC reverse engineering": a V100-SXM2-32GB in a Dell C4130, these lines alone.
V100_POWER_BRAKE_REASONS = """\
Clocks Throttle Reasons
    Idle                              : Not Active
    Applications Clocks Setting       : Not Active
    SW Power Cap                      : Not Active
    HW Slowdown                       : Active
        HW Thermal Slowdown           : Not Active
        HW Power Brake Slowdown       : Active

Clocks
    Graphics                          : 382 MHz
    SM                                : 382 MHz
    Memory                            : 877 MHz
    Video                             : 1372 MHz
"""

# A public post on nvidia-smi's commands (bsyonline, 2018-05-28, its output of 2023): one of 8 V100,
# whose generation counts memory errors by bits. Blanks at the ends of lines are left out here.
V100_IDLE = """\
==============NVSMI LOG==============

Timestamp                                 : Fri Nov  3 11:39:46 2023
Driver Version                            : 470.129.06
CUDA Version                              : 11.4

Attached GPUs                             : 8
GPU 00000000:1C:00.0
    Product Name                          : Tesla V100-PCIE-32GB
    Product Brand                         : Tesla
    MIG Mode
        Current                           : N/A
        Pending                           : N/A
    GPU UUID                              : GPU-06e3d8e6-3f54-374a-8142-9752ca1f2316
    Minor Number                          : 1
    Performance State                     : P0
    Clocks Throttle Reasons
        Idle                              : Active
        Applications Clocks Setting       : Not Active
        SW Power Cap                      : Not Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Not Active
            HW Power Brake Slowdown       : Not Active
        Sync Boost                        : Not Active
        SW Thermal Slowdown               : Not Active
        Display Clock Setting             : Not Active
    FB Memory Usage
        Total                             : 32510 MiB
        Used                              : 0 MiB
        Free                              : 32510 MiB
    Compute Mode                          : Default
    Ecc Mode
        Current                           : Enabled
        Pending                           : Enabled
    ECC Errors
        Volatile
            Single Bit
                Device Memory             : 0
                Register File             : 0
                L1 Cache                  : 0
                L2 Cache                  : 0
                Texture Memory            : N/A
                Texture Shared            : N/A
                CBU                       : N/A
                Total                     : 0
            Double Bit
                Device Memory             : 0
                Register File             : 0
                L1 Cache                  : 0
                L2 Cache                  : 0
                Texture Memory            : N/A
                Texture Shared            : N/A
                CBU                       : 0
                Total                     : 0
        Aggregate
            Single Bit
                Device Memory             : 3
                Register File             : 0
                L1 Cache                  : 0
                L2 Cache                  : 0
                Texture Memory            : N/A
                Texture Shared            : N/A
                CBU                       : N/A
                Total                     : 3
            Double Bit
                Device Memory             : 0
                Register File             : 0
                L1 Cache                  : 0
                L2 Cache                  : 0
                Texture Memory            : N/A
                Texture Shared            : N/A
                CBU                       : 0
                Total                     : 0
    Retired Pages
        Single Bit ECC                    : 1
        Double Bit ECC                    : 0
        Pending Page Blacklist            : No
    Remapped Rows                         : N/A
    Processes                             : None
"""

# utkuozdemir/nvidia_gpu_exporter, internal/captures/linux-x86_64__nvidia-h200-mig__590.48.01.txt:
# its UUID is masked there; the first slices are left out here.
H200_MIG = """\
==============NVSMI LOG==============

GPU 00000000:83:00.0
    Product Name                                       : NVIDIA H200
    MIG Mode
        Current                                        : Enabled
        Pending                                        : Enabled
    MIG Device
        Index                                          : 3
        GPU Instance ID                                : 9
        Compute Instance ID                            : 0
        Device Attributes
            Shared
                Multiprocessor count                   : 16
        ECC Errors
            Volatile
                SRAM Uncorrectable                     : 0
        Shared FB Memory Usage
            Total                                      : 16384 MiB
            Reserved                                   : 0 MiB
            Used                                       : 9 MiB
            Free                                       : 16376 MiB
    MIG Device
        Index                                          : 4
        GPU Instance ID                                : 10
        Compute Instance ID                            : 0
        Device Attributes
            Shared
                Multiprocessor count                   : 16
        ECC Errors
            Volatile
                SRAM Uncorrectable                     : 0
        Shared FB Memory Usage
            Total                                      : 16384 MiB
            Reserved                                   : 0 MiB
            Used                                       : 9 MiB
            Free                                       : 16376 MiB
    Accounting Mode                                    : Disabled
    GPU UUID                                           : GPU-00000000-0000-0000-0000-000000000000
    GPU Recovery Action                                : None
    FB Memory Usage
        Total                                          : 143771 MiB
        Reserved                                       : 614 MiB
        Used                                           : 55 MiB
        Free                                           : 143103 MiB
    Compute Mode                                       : Default
    ECC Errors
        Volatile
            SRAM Correctable                           : 0
            SRAM Uncorrectable Parity                  : 0
            SRAM Uncorrectable SEC-DED                 : 0
            DRAM Correctable                           : 0
            DRAM Uncorrectable                         : 0
        Channel Repair Pending                         : No
        TPC Repair Pending                             : No
        Unrepairable Memory                            : No
    Remapped Rows                                      : N/A
    Processes                                          : None
"""

# Yandex Cloud's documentation on GPU clusters, ``nvidia-smi -L`` on two A100 cut into slices.
A100_MIG_LIST = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-9c73eb7b-8d6d-6c0e-dc13-97873e2ede40)
  MIG 1g.10gb     Device  0: (UUID: MIG-a686709d-6dc2-542a-8851-0d2508448c10)
  MIG 1g.10gb     Device  1: (UUID: MIG-53864714-0a66-5df2-9007-9268e30d9a72)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-c92e2d5d-4a69-f1cd-4df0-305f8606705a)
  MIG 1g.10gb     Device  0: (UUID: MIG-d5a46a2e-1d77-575d-99e3-1f96c8555a2e)
  MIG 1g.10gb     Device  1: (UUID: MIG-b8479d6e-d08f-5a92-9a24-0946db72b2a0)
"""

# leptonai/gpud, pkg/nvidia-query/xid/testdata/dmesg-with-xid-119.log, without the call trace.
DMESG_XID_119 = """\
[Sun Feb 23 16:24:18 2025] NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d
[Sun Feb 23 16:24:18 2025] NVRM: GPU Board Serial Number: 1650124014249
[Sun Feb 23 16:24:18 2025] NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout \
after 6s of waiting for RPC response from GPU4 GSP! Expected function 103 (GSP_RM_ALLOC) \
(0x2081 0x4).
[Sun Feb 23 16:24:24 2025] NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout \
after 6s of waiting for RPC response from GPU4 GSP! Expected function 10 (FREE) (0xa55a0210 0x0).
[Sun Feb 23 16:24:30 2025] clocksource: Long readout interval, skipping watchdog check: cs_nsec: \
1584036171 wd_nsec: 1584036160
[Sun Feb 23 16:27:12 2025] NVRM: Xid (PCI:0000:9b:00): 119, pid=1263500, name=cache_mgr_main, \
Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 76 (GSP_RM_CONTROL) \
(0x20801813 0x4c).
"""

# akash-network/support#244: programs' own errors, then a contained memory error.
DMESG_XID_MIXED = """\
[Sun Jul 28 09:15:27 2024] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 \
19:39:15 UTC 2024
[Wed Jul 31 23:14:18 2024] NVRM: GPU at PCI:0000:00:05: GPU-efbdfde9-5798-a6e7-4c46-12518fa15375
[Wed Jul 31 23:14:18 2024] NVRM: Xid (PCI:0000:00:05): 43, pid=1045242, name=pt_main_thread, Ch \
00000008
[Wed Jul 31 23:15:26 2024] NVRM: Xid (PCI:0000:00:05): 43, pid=1084984, name=pt_main_thread, Ch \
00000008
[Mon Aug  5 03:54:13 2024] NVRM: Xid (PCI:0000:00:07): 31, pid=2512125, name=python3.10, Ch \
00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_8 faulted @ 0x73ac_1c000000. \
Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_WRITE
[Fri Aug  9 13:32:56 2024] NVRM: Xid (PCI:0000:00:08): 94, pid='<unknown>', name=<unknown>, \
Contained: SM (0x1). RST: No, D-RST: No
"""

# ubuntuforums.org, 2016-12-06: kernel time inside a line of syslog.
SYSLOG_XID_79 = """\
Dec  6 17:49:03 eduardo-desktop kernel: [ 8659.726052] NVRM: GPU at PCI:0000:01:00: \
GPU-c4a80165-86e4-bfbb-ecfa-1d81a70b138a
Dec  6 17:49:03 eduardo-desktop kernel: [ 8659.726062] NVRM: Xid (PCI:0000:01:00): 79, GPU has \
fallen off the bus.
Dec  6 17:49:03 eduardo-desktop kernel: [ 8659.726067] NVRM: GPU at 0000:01:00.0 has fallen off \
the bus.
"""

# NVIDIA/NVSentinel#155: the same without a number.
DMESG_OFF_THE_BUS = """\
[ 1843.308145] NVRM: The NVIDIA GPU 0000:b3:00.0
               NVRM: (PCI ID: 10de:26b5) installed in this system has
               NVRM: fallen off the bus and is not responding to commands.
[ 1843.439662] NVRM: The NVIDIA probe routine failed for 1 device(s).
"""

# A thread on linux-usb about a Thunderbolt monitor (Dell U2725QE): how journalctl begins a line of
# the kernel's with -o short-monotonic. No Xid in this form was found.
JOURNAL_STAMP = "[    5.852476] localhost kernel: "
# What journalctl -k prints, with exit code 0, where it shows none of the kernel's entries: captured
# on Debian 12 (systemd 252), and in systemd/systemd#23018. The reason goes to stderr.
JOURNAL_NOTHING = "-- No entries --\n"
# NVIDIA/open-gpu-kernel-modules#1030: a kernel that names the caller.
DMESG_CALLER = (
    "[ 130.456250] [ T1946] NVRM: Xid (PCI:0000:2b:00): 31, pid=1942, name=llama-bench, channel "
    "0x00000002, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC6 GPCCLIENT_T1_13 faulted @ "
    "0x6f6f_320c2000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ\n"
)
