"""`loopctr compare`: many systems on one prepared folder under one protocol."""

from pathlib import Path

import click

from loopctr_tf.cli.options import JSON, PREPARED
from loopctr_tf.errors import UsageError


def _help_protocol(context, parameter, value):
    if not value or context.resilient_parsing:
        return
    import yaml

    from loopctr_tf.compare.protocol import Comparison, Protocol
    from loopctr_tf.training.settings import TrainingConfig

    click.echo(yaml.safe_dump(Comparison().to_dict(), sort_keys=False))
    for section, cls in {"protocol": Protocol, "training": TrainingConfig}.items():
        click.echo(f"{section}:\n{cls.help_text()}\n")
    click.echo("models: of each system, see `loopctr train --help-config MODEL`")
    context.exit()


@click.command()
@PREPARED
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the comparison: a new one, or one that an earlier call did not finish.",
)
@click.option(
    "--models",
    default="all",
    show_default=True,
    help="Comma-separated names of systems, or all.",
)
@click.option(
    "--seeds", type=click.IntRange(1), help="Final trainings of each system; 3 by default."
)
@click.option(
    "--trials", type=click.IntRange(1), help="Settings tried for each system; 8 by default."
)
@click.option(
    "--config",
    help="YAML with the sections protocol, training and models, or a preset: paper/amazon, "
    "paper/taobao, paper/kuaivideo.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a setting, e.g. --set training.epochs=3 --set loopctr.loops=2. Repeatable.",
)
@click.option(
    "--ablations", is_flag=True, help="Also train LoopCTR with each of its parts removed in turn."
)
@click.option(
    "--sensitivity", is_flag=True, help="Also train LoopCTR with other numbers of experts."
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Systems trained at a time; by default one, or one a device.",
)
@click.option(
    "--devices",
    help="Comma-separated GPUs (values of CUDA_VISIBLE_DEVICES); a system takes one that is free.",
)
@JSON
@click.option(
    "--help-protocol",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_help_protocol,
    help="Print all settings with their defaults and meanings.",
)
def compare(
    prepared,
    out,
    models,
    seeds,
    trials,
    config,
    overrides,
    ablations,
    sensitivity,
    jobs,
    devices,
    as_json,
):
    """Compare systems on PREPARED: an equal search, several seeds, AUC, GAUC, NE and cost.

    Every system gets the same inputs, the same optimizer, the same number of trials and early stopping
    on the validation split; each final run reads the test split once. OUT receives results.md,
    results.json, two plots and all runs. The same command continues what was interrupted.

    \b
    Examples:
      loopctr compare prepared --out build/compare --models loopctr,din,dcnv2 --seeds 2 --trials 4
      loopctr compare prepared --out build/compare --ablations --jobs 2
      loopctr compare prepared --out build/paper --config paper/amazon

    \b
    All settings of the protocol:
      loopctr compare --help-protocol
    """
    from loopctr_tf.compare.protocol import Comparison
    from loopctr_tf.features.prepared import read_stats
    from loopctr_tf.files import json_text

    read_stats(prepared)
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--models is {models!r}; give names of systems, or all")
    comparison = Comparison.load(
        config,
        names,
        overrides,
        seeds=seeds,
        trials=trials,
        ablations=ablations,
        sensitivity=sensitivity,
    )
    from loopctr_tf.compare.compare import compare as run_comparison
    from loopctr_tf.compare.report import REPORT

    devices = tuple(devices.split(",")) if devices else ()
    jobs = jobs or max(len(devices), 1)
    results = run_comparison(
        prepared, out, comparison, jobs, devices, log=lambda line: click.echo(line, err=True)
    )
    click.echo(
        json_text(results) if as_json else (out / REPORT).read_text(encoding="utf-8"), nl=as_json
    )
    if results["failed"]:
        raise click.exceptions.Exit(1)  # the report has the reasons
