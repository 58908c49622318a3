"""``hpctrain bench predict``: what to expect of machines that nobody has tried."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpctrain.cli.hardware_options import complete_gpu, complete_instance
from hpctrain.cli.launch_options import config_option, json_option, set_option
from hpctrain.train.presets import PRESETS

if TYPE_CHECKING:
    from hpctrain.scaling_model.step import StepModel
    from hpctrain.scaling_model.topology import Topology


@click.command(
    name="predict",
    epilog="""\b
Examples:
  hpctrain bench predict --nodes 2,4,8,...,1024 --instance p4d.24xlarge --model xlarge
  hpctrain bench predict --nodes 1,2,4 --link 100gbit,20us --gpu a100-80gb --accum 4
  hpctrain bench predict --nodes 1,...,64 --instance p5.48xlarge --config run.toml --out plot.svg
  hpctrain bench predict --nodes 2,4,8 --from bench/today        calibrated by what was measured
""",
)
@click.option(
    "--nodes",
    default="1,2,4,...,64",
    show_default=True,
    metavar="LIST",
    help="Numbers of nodes; dots go on doubling.",
)
@click.option(
    "--gpus-per-node", type=click.IntRange(min=1), help="Ranks on each. Default: the instance's."
)
@click.option(
    "--instance",
    metavar="NAME",
    shell_complete=complete_instance,
    help="A cloud's machine, whose network and GPU are taken from a table.",
)
@click.option("--link", metavar="RATE,LATENCY", help="Between nodes: line rate, one-way latency.")
@click.option(
    "--intra-link", metavar="RATE,LATENCY", help="Between two GPUs of a node. Default: the GPU's."
)
@click.option(
    "--model", type=click.Choice(list(PRESETS)), help="A preset's size.  [default: xlarge]"
)
@config_option
@set_option
@click.option(
    "--gpu", metavar="NAME", shell_complete=complete_gpu, help="Default: the instance's, or a100."
)
@click.option("--mfu", type=float, help="Of one GPU alone, 0 to 1. Default: a published one.")
@click.option("--accum", type=click.IntRange(min=1), help="Micro-batches a step.")
@click.option("--compression", type=click.Choice(["none", "fp16"]), help="Of gradients.")
@click.option(
    "--from",
    "bench_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Calibrate from what `hpctrain bench` measured there.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Draw it: .svg, .png, .pdf."
)
@json_option
def command(
    nodes: str,
    gpus_per_node: int | None,
    instance: str | None,
    link: str | None,
    intra_link: str | None,
    model: str | None,
    config_name: str | None,
    overrides: tuple[str, ...],
    gpu: str | None,
    mfu: float | None,
    accum: int | None,
    compression: str | None,
    bench_dir: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Predict step time and efficiency on many nodes, with an error band and its reasons.

    From published figures of GPUs and networks, or calibrated by a measurement (--from). Each
    rank has as much to do at every size (weak scaling).
    """
    from hpctrain.scaling_model.asked import PredictAsked, plan_prediction
    from hpctrain.scaling_model.predict import predict_curve
    from hpctrain.scaling_model.show import (
        draw_predictions,
        render_findings,
        render_predictions,
    )

    step, topologies = plan_prediction(
        PredictAsked(
            nodes=nodes,
            gpus_per_node=gpus_per_node,
            instance=instance,
            link=link,
            intra_link=intra_link,
            model=model,
            config_name=config_name,
            overrides=overrides,
            gpu=gpu,
            mfu=mfu,
            accum=accum,
            compression=compression,
            bench_dir=bench_dir,
        )
    )
    predictions = predict_curve(step, topologies)
    if out is not None:
        draw_predictions(predictions, out, _title(step, topologies))
    if as_json:
        record = {"step": asdict(step), "predictions": [asdict(p) for p in predictions]}
        click.echo(json.dumps(record, indent=1))
        return
    click.echo(_describe(step, topologies))
    click.echo(render_predictions(predictions))
    click.echo(render_findings(predictions))
    if out is not None:
        click.echo(f"drawn in {click.format_filename(out)}")


def _title(step: StepModel, topologies: tuple[Topology, ...]) -> str:
    gradients = step.exchanged_bytes / 1e9
    inter = topologies[-1].inter
    return f"{gradients:.3g} GB of gradients over {inter.name or 'the measured link'} a node"


def _describe(step: StepModel, topologies: tuple[Topology, ...]) -> str:
    inter = topologies[-1].inter
    return (
        f"a step alone: {step.alone_s:.4g} s ({step.source}), "
        f"{step.exchanged_bytes / 1e9:.3g} GB of gradients in {len(step.buckets)} buckets, "
        f"{step.accum} micro-batch{'es' if step.accum > 1 else ''}\n"
        f"between nodes: {inter.bandwidth_bytes_per_s / 1e9:.3g} GB/s, "
        f"{inter.latency_s * 1e6:.3g} us ({inter.source})"
    )
