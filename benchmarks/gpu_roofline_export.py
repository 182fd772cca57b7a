"""Writes the zero-loop forward pass and the training step as StableHLO, for gpu_roofline.py to time.

Runs where TensorFlow is; gpu_roofline.py needs JAX alone. The step is loss and gradients, without the
optimizer; both begin at row numbers, so that strings are looked up outside, and take all weights as
inputs. Of an embedding table the gradient is that of the rows that were gathered.

    python benchmarks/gpu_roofline_export.py build/roofline

The folder gets roofline.json and for each combination of program, precision and dispatch two modules:
one of the size that is timed, and a small one with histories of all lengths. Beside them lies what
TensorFlow computes, uncompiled and in float32, from the numbers that the small ones are given.
"""

import gzip
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
import tensorflow as tf
import tf_keras as keras
from gpu_roofline import INDEX, distance, made_up

from loopctr_tf.bench.flops import flops_of, training_flops
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.layers import balance_loss
from loopctr_tf.models import LoopCTR
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.models.settings import ExecutionConfig

PROGRAMS = ("forward", "training")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
DISPATCHES = ("batched", "dense")
# Amazon in the LoopCTR paper: two fields of a sequence of 100 and four others, 192,403 items (Table 1);
# L = 3 (Table 2), 2 of 4 experts (Table 4), d = 64, two streams, batches of 2048 (D.1). It gives neither
# d_ff nor heads: 768 brings our count at three loops to 201.9 MFLOP, where Table 6 has 201.55.
HISTORY, ITEMS, BATCH_SIZE = 100, 192_403, 2048
SIZES = {"dim": 64, "heads": 4, "ffn_dim": 768, "experts": 4, "active_experts": 2, "loops": 3}
CHECKED_ROWS = 16


def roofline_model(config: LoopCTRConfig, execution: ExecutionConfig, history: int) -> LoopCTR:
    """A LoopCTR that takes row numbers where others take strings; the same weights each time."""
    keras.utils.set_random_seed(1)
    schema = workload_schema(history, item_buckets=ITEMS)
    model = LoopCTR(schema, config, execution, name="loopctr")
    model.encoder.lookup = lambda rows: rows
    return model


def data_inputs(schema, rows: int, ragged: bool) -> list[dict]:
    """Features of ``rows`` rows, then labels: name, shape, dtype, and the numbers to fill in."""

    def described(feature, shape):
        if feature.table is None:
            fill = {"normal": [feature.mean, feature.std]}
            return {"name": feature.name, "shape": shape, "dtype": "float32", "fill": fill}
        fill = {"integers": [0, schema.table(feature.table).rows]}
        return {"name": feature.name, "shape": shape, "dtype": "int32", "fill": fill}

    found = [described(feature, [rows]) for feature in schema.features]
    for sequence in schema.sequences:
        longest = sequence.max_length
        found += [described(field, [rows, longest]) for field in sequence.fields]
        fill = {"integers": [0 if ragged else longest, longest + 1]}
        name = sequence.length_name
        found.append({"name": name, "shape": [rows], "dtype": "int32", "fill": fill})
    label = {"name": schema.label, "shape": [rows], "dtype": "float32"}
    return [*found, {**label, "fill": {"integers": [0, 2]}}]


def weight_input(weight: tf.Variable) -> dict:
    """Numbers spread as the weight's first values are, but none of them all zero or all one."""
    value = weight.numpy()
    return {
        "name": weight.name.split(":")[0],
        "shape": list(value.shape),
        "dtype": value.dtype.name,
        "fill": {"normal": [float(value.mean()), max(float(value.std()), 0.05)]},
    }


def zero_loops(model: LoopCTR, features) -> tf.Tensor:
    """Probability [B]; ``model.score`` is the same in chunks, in a loop that XLA cannot compile."""
    logits = model(features, loops=0, training=False)
    return tf.sigmoid(tf.cast(logits[:, 0], tf.float32))


def training_loss(model: LoopCTR, features, labels) -> tf.Tensor:
    """mean over depths of BCE + lambda L_bal (eq. 10 and 14), without the metrics of ``fit``."""
    logits, counts = model(features, training=True, return_statistics=True)
    logits = tf.cast(logits, tf.float32)
    labels = tf.broadcast_to(labels[:, None], tf.shape(logits))
    bce = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
    # Entry routers ran at depth 0 alone, those of the Loop Block from depth 1 on.
    ran = (
        [counts[:2, :1], counts[2:4, 1:], counts[4:]]
        if model.config.loops
        else [counts[:2], counts[4:]]
    )
    balance = tf.reduce_mean([tf.reduce_mean(balance_loss(part)) for part in ran])
    return tf.reduce_mean(bce) + model.config.balance_weight * balance


def program_inputs(model: LoopCTR, name: str, rows: int, ragged: bool) -> list[dict]:
    """:func:`data_inputs` that the program needs."""
    data = data_inputs(model.schema, rows, ragged)
    return data[:-1] if name == "forward" else data


def outward(gradient, weight: tf.Variable) -> tf.Tensor:
    """A gradient as the step hands it on, float32: of a table's gathered rows one by one."""
    if isinstance(gradient, tf.IndexedSlices) and "/embeddings" in weight.name:
        gradient = gradient.values
    return tf.cast(tf.convert_to_tensor(gradient), tf.float32)


def program(model: LoopCTR, name: str, inputs: list[dict]):
    """(function of the ``inputs`` one by one, names of what it returns)."""
    names = [one["name"] for one in inputs]
    if name == "forward":
        return lambda *values: [zero_loops(model, dict(zip(names, values, strict=True)))], [
            "probability"
        ]
    weights = model.trainable_variables

    def step(*values):
        *features, labels = values
        with tf.GradientTape() as tape:
            features = dict(zip(names, features, strict=False))
            loss = training_loss(model, features, labels)
        gradients = tape.gradient(loss, weights)
        return [loss, *map(outward, gradients, weights)]

    return step, ["loss", *(weight.name.split(":")[0] for weight in weights)]


def described(model: LoopCTR, name: str, rows: int, ragged: bool) -> tuple[str, dict]:
    """StableHLO as text, and what goes in and comes out."""
    data = program_inputs(model, name, rows, ragged)
    function, outputs = program(model, name, data)
    specs = [tf.TensorSpec(one["shape"], one["dtype"]) for one in data]
    compiled = tf.function(function, jit_compile=True, autograph=False)
    text = compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo")
    traced = compiled.get_concrete_function(*specs)
    # What a function captures are its last parameters, in this order.
    by_handle = {id(weight.handle): weight for weight in model.variables}
    weights = [by_handle[id(handle)] for handle in traced.captured_inputs]
    return text, {
        "inputs": [*data, *map(weight_input, weights)],
        "outputs": [
            {"name": output, "shape": tensor.shape.as_list(), "dtype": tensor.dtype.name}
            for output, tensor in zip(outputs, traced.outputs, strict=True)
        ],
    }


def computed(model: LoopCTR, name: str) -> list[np.ndarray]:
    """What TensorFlow makes, uncompiled, of the numbers that the small module is given."""
    for weight in model.trainable_variables:
        weight.assign(made_up([weight_input(weight)])[0])
    data = program_inputs(model, name, CHECKED_ROWS, ragged=True)
    function, _ = program(model, name, data)
    outputs = tf.function(function, autograph=False)(*map(tf.constant, made_up(data)))
    return [output.numpy() for output in outputs]


def row_flops(model: LoopCTR, name: str) -> float:
    """Operations of a program on one row with a full history."""
    data = program_inputs(model, "forward", 1, ragged=False)
    values = map(tf.constant, made_up(data))
    row = dict(zip([one["name"] for one in data], values, strict=True))
    return (
        flops_of(zero_loops, model, row)
        if name == "forward"
        else training_flops(model, [(row, None)])
    )


def write(folder: Path, name: str, model: LoopCTR, rows: int, reference: list) -> dict:
    """Writes both modules of a program; the index's entry. Leaves made-up weights in the model."""
    entry = {
        "program": name,
        "dtype": model.compute_dtype,
        "dispatch": model.execution.dispatch,
        "batch_size": rows,
        "flops": rows * row_flops(model, name),
        "reference": f"{name}.npz",
    }
    for kind, size in (("timed", rows), ("checked", CHECKED_ROWS)):
        text, entry[kind] = described(model, name, size, ragged=kind == "checked")
        entry[kind]["module"] = f"{name}-{entry['dtype']}-{entry['dispatch']}-{kind}.mlir.gz"
        (folder / entry[kind]["module"]).write_bytes(gzip.compress(text.encode()))
    entry["tensorflow_distance"] = distance(computed(model, name), reference)
    return entry


def export(
    folder: Path, rows: int, history: int, sizes: dict, programs, dtypes, dispatches
) -> dict:
    """Writes everything; returns what roofline.json holds."""
    folder.mkdir(parents=True, exist_ok=True)

    def model(dtype: str, dispatch: str) -> LoopCTR:
        execution = ExecutionConfig(expert_dispatch=dispatch, precision=PRECISIONS[dtype])
        return roofline_model(LoopCTRConfig(**sizes), execution, history)

    entries = []
    for name in programs:
        reference = computed(model("float32", "dense"), name)
        np.savez(folder / f"{name}.npz", *reference)
        for dtype, dispatch in itertools.product(dtypes, dispatches):
            entries.append(write(folder, name, model(dtype, dispatch), rows, reference))
            click.echo(f"{name} {dtype} {dispatch}")
    index = {
        "history": history,
        "settings": LoopCTRConfig(**sizes).to_dict(),
        "tensorflow": tf.__version__,
        "programs": entries,
    }
    (folder / INDEX).write_text(json.dumps(index))
    return index


def chosen(known: Iterable[str]):
    """An option that takes some of ``known``."""
    return {
        "type": click.Choice([*known]),
        "multiple": True,
        "default": [*known],
        "show_default": True,
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--batch-size", "rows", default=BATCH_SIZE, show_default=True)
@click.option("--history", default=HISTORY, show_default=True)
@click.option("--dim", default=SIZES["dim"], show_default=True)
@click.option("--heads", default=SIZES["heads"], show_default=True)
@click.option("--ffn-dim", default=SIZES["ffn_dim"], show_default=True)
@click.option("--experts", default=SIZES["experts"], show_default=True)
@click.option("--active-experts", default=SIZES["active_experts"], show_default=True)
@click.option("--loops", default=SIZES["loops"], show_default=True)
@click.option("--program", "programs", **chosen(PROGRAMS))
@click.option("--dtype", "dtypes", **chosen(PRECISIONS))
@click.option("--dispatch", "dispatches", **chosen(DISPATCHES))
def main(folder, rows, history, programs, dtypes, dispatches, **sizes):
    """Write StableHLO modules of the paper's Amazon shape into FOLDER."""
    export(folder, rows, history, sizes, programs, dtypes, dispatches)


if __name__ == "__main__":
    main()
