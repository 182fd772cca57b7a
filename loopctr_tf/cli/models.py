"""`loopctr train | evaluate | export | inspect`: from a prepared folder to a SavedModel."""

from pathlib import Path

import click

from loopctr_tf.cli.options import JSON, PREPARED, RUN
from loopctr_tf.errors import UsageError


@click.command()
@PREPARED
@RUN
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="YAML with sections `model`, `execution` and `training`.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a setting, e.g. --set dim=32 --set training.epochs=3. Repeatable.",
)
@click.option(
    "--schema",
    type=click.Path(path_type=Path),
    help="Another schema.yaml for the same rows, e.g. with shorter histories.",
)
@click.option("--quiet", is_flag=True, help="One line per epoch instead of a progress bar.")
def train(prepared, run, config, overrides, schema, quiet):
    """Train on the folder PREPARED and write everything to the new folder RUN.

    RUN holds config.yaml, schema.yaml, metrics.json, logs/ (TensorBoard), checkpoints/ (every epoch)
    and weights/ (the best one, by training.monitor on the validation split).

    \b
    All settings with their defaults, of LoopCTR or of another model:
      loopctr train --help-config
      loopctr train --help-config hstu
    """
    from loopctr_tf.features.prepared import read_stats
    from loopctr_tf.features.schema import Schema
    from loopctr_tf.files import require_new
    from loopctr_tf.training.settings import RunConfig

    # Checks that do not need TensorFlow come first: loading it takes seconds.
    read_stats(prepared)
    require_new(run)
    settings = RunConfig.load(config, overrides)
    schema = None if schema is None else Schema.load(schema)
    from loopctr_tf.training.train import train as run_training

    results = run_training(
        prepared, run, settings, schema, verbose=2 if quiet else "auto", log=click.echo
    )
    click.echo(
        f"best epoch {results['best_epoch']} of {len(results['history']['loss'])} "
        f"by {results['monitor']}, {results['seconds']:.0f} s"
    )
    click.echo("validation split:")
    _print_heads(results["valid"], settings)
    click.echo(f"\nnext: loopctr evaluate {run} {prepared}")


def _help_config(context, parameter, value):
    if not value or context.resilient_parsing:
        return
    import yaml

    from loopctr_tf.models import config_class
    from loopctr_tf.models.settings import ExecutionConfig
    from loopctr_tf.training.settings import RunConfig, TrainingConfig

    model = config_class(value)
    click.echo(yaml.safe_dump(RunConfig(name=value).to_dict(), sort_keys=False))
    sections = {"model": model, "execution": ExecutionConfig, "training": TrainingConfig}
    for section, cls in sections.items():
        click.echo(f"{section}:\n{cls.help_text()}\n")
    context.exit()


train.params.append(
    click.Option(
        ["--help-config"],
        is_flag=False,
        flag_value="loopctr",
        metavar="[MODEL]",
        is_eager=True,
        expose_value=False,
        callback=_help_config,
        help="Print all settings of MODEL (loopctr by default) with their defaults and meanings.",
    )
)


@click.command()
@RUN
@PREPARED
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@click.option("--loops", type=int, help="Deepest depth; that of training by default.")
@click.option("--batch-size", type=click.IntRange(1), default=1024, show_default=True)
@JSON
def evaluate(run, prepared, split, loops, batch_size, as_json):
    """Exact AUC, GAUC, NE and calibration of RUN at every loop depth, on a split of PREPARED.

    Choose settings on the validation split; use the test split only once.
    """
    from loopctr_tf.files import json_text
    from loopctr_tf.training.run_folder import load_run, read_metrics

    read_metrics(run)
    from loopctr_tf.features.prepared import read_stats

    protocol = read_stats(prepared).get("protocol")
    from loopctr_tf.evaluation.predict import evaluate_run

    model, config = load_run(run)
    depths, _ = evaluate_run(model, prepared, split, loops, batch_size)
    if as_json:
        click.echo(json_text({"split": split, "protocol": protocol, "depths": depths}))
        return
    if protocol is not None:
        click.echo(f"protocol: {protocol}")
    _print_heads(depths, config)


@click.command()
@RUN
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--signatures",
    help="Comma-separated names; all by default. serving_default is always exported.",
)
@click.option("--loops", type=int, help="Deepest depth; that of training by default.")
@click.option(
    "--bad-input",
    type=click.Choice(["reject", "repair"]),
    default="reject",
    show_default=True,
    help="Requests with impossible lengths or numbers that are not finite: refuse, or repair (for "
    "servers that batch).",
)
@click.option(
    "--state-dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the user states of encode_user_loop_i.",
)
@click.option(
    "--weights",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type in which tables and kernels are stored; the 16-bit ones halve the export.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "mixed_bfloat16"]),
    help="Type in which the model computes; that of training by default. Use float32 on a CPU without "
    "bfloat16 instructions.",
)
@click.option(
    "--warmup-batch-sizes",
    default="1",
    show_default=True,
    help="Comma-separated batch sizes of the warm-up requests; for a server that batches, its "
    "allowed_batch_sizes.",
)
def export(
    run, path, signatures, loops, bad_input, state_dtype, weights, precision, warmup_batch_sizes
):
    """Export RUN as a SavedModel to the new folder PATH, e.g. models/loopctr/1.

    The last part of PATH is the version number for the server. Inputs are raw features.
    """
    from loopctr_tf.files import require_new
    from loopctr_tf.training.run_folder import load_run, read_metrics

    metrics = read_metrics(run)
    require_new(path)
    try:
        sizes = [int(size) for size in warmup_batch_sizes.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--warmup-batch-sizes is {warmup_batch_sizes!r}; give whole numbers such as 1,8,32"
        ) from error
    from loopctr_tf.export.export import export_saved_model

    model, _ = load_run(run, precision)
    names = None if signatures is None else [name.strip() for name in signatures.split(",")]
    export_saved_model(
        model,
        path,
        loops=loops,
        signatures=names,
        bad_input=bad_input,
        state_dtype=state_dtype,
        weights=weights,
        warmup_batch_sizes=sizes,
        metrics=metrics,
    )
    click.echo(f"exported to {path}\nnext: loopctr serve {path.parent} --port 8500")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--signature", help="Print only a ready request for this signature, as JSON.")
@JSON
def inspect(model, signature, as_json):
    """Signatures, inputs, sizes and ready requests of the export MODEL (or of its newest version).

    Requests are bodies for TensorFlow Serving's REST interface, POST /v1/models/NAME:predict
    (or :classify and :regress for those signatures).
    """
    from loopctr_tf.export.inspect import inspect_saved_model
    from loopctr_tf.files import json_text

    found = inspect_saved_model(model)
    if signature is not None and signature not in found["signatures"]:
        raise UsageError(
            f"signature {signature!r} is not in {found['path']!r}; "
            f"choose {', '.join(found['signatures'])}"
        )
    if signature is not None:
        click.echo(json_text(found["signatures"][signature]["request"]))
    elif as_json:
        click.echo(json_text(found))
    else:
        _print_export(found)


def _print_heads(rows, config):
    from loopctr_tf.evaluation.report import depth_rows, metrics_table

    click.echo(metrics_table(depth_rows(rows, getattr(config.model, "loops", None))))


def _print_export(found):
    click.echo(
        f"{found['path']}: {found['bytes']:,} bytes, {found['variable_bytes']:,} of them variables, "
        f"{found['loop_block_bytes']:,} of those in the Loop Block"
    )
    families = {}  # inputs and outputs -> names of the signatures
    for name, signature in found["signatures"].items():
        lines = [f"  ({signature['method'].rpartition('/')[2]})"]
        for arrow, side in (("<-", "inputs"), ("->", "outputs")):
            for key, info in signature[side].items():
                sizes = ", ".join("?" if size < 0 else str(size) for size in info["shape"])
                lines.append(f"  {arrow} {key}: {info['dtype']} [{sizes}]")
        families.setdefault("\n".join(lines), []).append(name)
    for lines, names in families.items():
        click.secho(f"\n{', '.join(names)}", bold=True, nl=False)
        click.echo(lines)
    click.echo(f"\na ready request: loopctr inspect {found['path']} --signature serving_default")
