"""``hpctrain estimate``: what a training needs before it runs, and whether a plan can hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from hpctrain.cli.hardware_options import complete_gpu, complete_instance
from hpctrain.cli.launch_options import config_option, set_option

if TYPE_CHECKING:
    from hpctrain.estimate.asked import Asked


def _complete_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from hpctrain.train.presets import PRESETS

    return [CompletionItem(name) for name in PRESETS if name.startswith(incomplete)]


@click.command(
    epilog="""\b
Examples:
  hpctrain estimate --model xlarge --tokens 100B --gpu a100-80gb --gpus 8 --deadline 48h
  hpctrain estimate --model xlarge --tokens 100B --instance p4de.24xlarge --gpus 64 --budget 20k
  hpctrain estimate --model large --tokens 15B --gpu a100 --gpus 8 --gpus-per-node 2 \\
    --link 10gbit,20ms --efficiency 85%
  hpctrain estimate --config run.toml --set train.tokens=20000000000 --gpu h100 --gpus 8
  hpctrain estimate --model xlarge --tokens 100B --deadline 2d --what-if

\b
Exit codes: 0 the plan holds by what is expected, 1 it does not, 2 usage. A goal within the band of
what is uncertain says "holds only if", with the odds; --json has then certain: false.
""",
)
@click.option(
    "--model",
    metavar="SIZE",
    shell_complete=_complete_model,
    help="tiny, small, medium, large or xlarge. Or give --config.",
)
@config_option
@set_option
@click.option("--tokens", metavar="N", help="Tokens to train on: 100B, 1.3T. Default: the file's.")
@click.option(
    "--precision",
    metavar="FORMAT",
    help="As train.precision. Default: the file's; with --model bf16, or fp16 on GPUs without it.",
)
@click.option(
    "--global-batch",
    metavar="N",
    help="Sequences a step over all GPUs, or '524288 tokens'. Default: as the "
    "configuration, 8 sequences a GPU.",
)
@click.option(
    "--accum",
    type=click.IntRange(min=1),
    help="Micro-batches a step. Default: the file's; with --model the fewest that fit.",
)
@click.option(
    "--gpu",
    metavar="KIND",
    shell_complete=complete_gpu,
    help="a100-80gb, h100, l4 … Default: the --instance's.",
)
@click.option(
    "--gpus", type=click.IntRange(min=1), help="How many in all. Default: one --instance's."
)
@click.option(
    "--gpus-per-node",
    type=click.IntRange(min=1),
    help="GPUs a node. Default: the --instance's, else up to 8.",
)
@click.option(
    "--instance",
    metavar="NAME",
    shell_complete=complete_instance,
    help="A cloud's machine type: its GPUs and network.",
)
@click.option(
    "--link",
    metavar="RATE,LATENCY",
    help="A node's network, e.g. 100gbit,20us or 1gbit,20ms. Default: the --instance's, "
    "else 100gbit,20us, which is an assumption.",
)
@click.option(
    "--intra-link",
    metavar="RATE,LATENCY",
    help="Between two GPUs of a node. Default: the GPU's NVLink, else PCIe.",
)
@click.option(
    "--mfu",
    metavar="SHARE",
    help="What part of its peak a GPU computes, e.g. 0.45. Default: of the newest fitting "
    "run in --runs-dir, else as published for size, GPU and length of a sequence.",
)
@click.option("--deadline", metavar="TIME", help="It must be done by then: 48h, 2d, 30min.")
@click.option("--budget", metavar="USD", help="It may cost so much on demand: 5000, 20k.")
@click.option(
    "--tokens-per-s", metavar="RATE", help="A rate to be judged, all GPUs together: 150K."
)
@click.option(
    "--efficiency",
    metavar="SHARE",
    help="Least scaling efficiency; names the accumulation that reaches it.",
)
@click.option(
    "--what-if",
    is_flag=True,
    help="All priced machines and sizes in one table, the cheapest first.",
)
@click.option("--usd-per-gpu-hour", metavar="USD", help="Your own price, in place of the table's.")
@click.option(
    "--prices",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A prices.toml of your own, on top of the one that comes with hpctrain.",
)
@click.option(
    "--storage",
    metavar="RATE",
    help="At which all GPUs together write a checkpoint. Default: 1gbyte (assumption).",
)
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where measured runs, or a bench, are.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
def command(what_if: bool, as_json: bool, **options: Any) -> int:
    """Say what a training needs: memory, time, money. And whether a plan can hold.

    Each line of the answer says where its figure comes from: a formula, a measurement, a
    publication or an assumption. Nothing is started and nothing is downloaded.
    """
    from hpctrain.estimate.asked import Asked

    asked = Asked(**options)
    return _sweep(asked, as_json=as_json) if what_if else _estimate(asked, as_json=as_json)


def _estimate(asked: Asked, *, as_json: bool) -> int:
    from hpctrain.estimate import show
    from hpctrain.estimate.accumulation import find_accumulation
    from hpctrain.estimate.notes import notes_on
    from hpctrain.estimate.plan import plan_estimate
    from hpctrain.estimate.request import resolve_request
    from hpctrain.estimate.smallest import advise_cluster, meets
    from hpctrain.estimate.verdict import GOOD_EFFICIENCY, judge

    request = resolve_request(asked)
    estimate = plan_estimate(request.job, request.cluster, request.assumptions)
    verdicts = judge(estimate, request.goals)
    notes = list(notes_on(estimate, request.config, request.goals))
    # A lack of efficiency alone has its own advice: fewer GPUs are none.
    for_size = replace(request.goals, efficiency=None)
    advice = [] if meets(estimate, for_size) else [advise_cluster(estimate, request.goals)]
    if as_json:
        wanted = request.goals.efficiency or GOOD_EFFICIENCY
        named = find_accumulation(estimate, wanted) if wanted < 1 else None
        click.echo(show.render_json(estimate, verdicts, advice, notes, named))
    else:
        show.print_estimate(estimate, verdicts, advice, notes)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _sweep(asked: Asked, *, as_json: bool) -> int:
    from hpctrain.estimate import show
    from hpctrain.estimate.what_if import sweep

    ignored = [
        name
        for name, value in (
            ("--gpus", asked.gpus), ("--gpus-per-node", asked.gpus_per_node),
            ("--link", asked.link), ("--intra-link", asked.intra_link),
        ) if value is not None
    ]  # fmt: skip
    if ignored:
        click.echo(f"warning: {', '.join(ignored)}: ignored with --what-if", err=True)
    found = sweep(asked)
    goals = (asked.deadline, asked.budget, asked.efficiency, asked.tokens_per_s)
    if as_json:
        click.echo(show.render_sweep_json(found))
    else:
        show.print_sweep(found, any(goal is not None for goal in goals))
    return 0 if any(choice.meets for choice in found.choices) else 1
