"""The transport contract: what carries gradients, by what NCCL or MPI itself reports."""
