"""Every variable that NCCL, MPI, UCX, libfabric and Horovod read: its value, and who set it."""
