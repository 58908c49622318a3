"""Starting ranks: a pure plan, one renderer table per MPI, the rank shim, the supervisor."""
