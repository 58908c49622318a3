"""Clusters: a provider makes nodes, and each yields a hostfile and an ssh configuration."""
