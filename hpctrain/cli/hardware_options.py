"""What --gpu and --instance offer to whoever presses Tab."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def complete_gpu(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the GPUs that estimates know."""
    from hpctrain.estimate.gpus import gpu_names

    return [CompletionItem(name) for name in gpu_names() if name.startswith(incomplete.lower())]


def complete_instance(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the clouds' machines that estimates know."""
    from hpctrain.estimate.nodes import node_kind_names

    return [CompletionItem(name) for name in node_kind_names() if name.startswith(incomplete)]
