"""Times the modules of gpu_roofline_export.py on this machine's accelerator, with JAX alone.

For machines that have JAX and no TensorFlow; JAX is no dependency of loopctr_tf. First the small module
of every program is run and compared with what TensorFlow computed from the same numbers; then the large
one is timed, and its operations a second (active experts only) are set beside the rate of a product of
square matrices in the same run and precision: its share of the roofline.

    python benchmarks/gpu_roofline_export.py build/roofline   # where TensorFlow is
    python gpu_roofline.py build/roofline --json found.json   # where the accelerator is

float32 is what the device makes of it by default, in products of matrices TF32 on recent NVIDIA GPUs,
for modules and rate alike; the rate of full float32 products is printed as well.
"""

import argparse
import dataclasses
import gzip
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

INDEX = "roofline.json"
TOLERANCE = 0.05
"""Of :func:`distance`, or twice as far as TensorFlow itself is in that precision. float32 may be TF32,
of 10 bits, and a rounding that moves a token to another expert moves its output whole."""


TOLD = ("program", "dtype", "dispatch", "batch_size", "flops", "tensorflow_distance")


def made_up(inputs: list[dict]) -> list[np.ndarray]:
    """The numbers that inputs are filled with: by their names, and the same on every machine."""
    values = []
    for one in inputs:
        rng = np.random.default_rng([*one["name"].encode()])
        if "integers" in one["fill"]:
            value = rng.integers(*one["fill"]["integers"], one["shape"])
        else:
            mean, std = one["fill"]["normal"]
            value = mean + std * rng.standard_normal(one["shape"], np.float32)
        values.append(np.asarray(value, one["dtype"]))
    return values


def distance(found, reference) -> float:
    """Norm of the difference over the norm of the reference, all outputs as one vector."""
    found, reference = (
        np.concatenate([np.ravel(x).astype(np.float64) for x in outputs])
        for outputs in (found, reference)
    )
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def loaded(jax, folder: Path, module: dict):
    """A module as a function that JAX compiles when it is first called."""

    def shapes(tensors):
        return [jax.ShapeDtypeStruct(tuple(t["shape"]), t["dtype"]) for t in tensors]

    def same_shapes(*inputs):
        return [jax.numpy.zeros(t.shape, t.dtype) for t in shapes(module["outputs"])]

    # JAX calls what it has exported itself: so it exports a stand-in, whose module is replaced.
    exported = jax.export.export(jax.jit(same_shapes, keep_unused=True))(*shapes(module["inputs"]))
    text = gzip.decompress((folder / module["module"]).read_bytes())
    return jax.jit(dataclasses.replace(exported, mlir_module_serialized=text).call)


def seconds_a_call(jax, call, arguments, seconds: float) -> list[float]:
    """Of at least five rounds, of several calls each, so that no launch is waited for."""
    for _ in range(2):
        jax.block_until_ready(call(*arguments))
    start = time.perf_counter()
    jax.block_until_ready(call(*arguments))
    calls = max(1, min(100, round(0.05 / (time.perf_counter() - start))))
    rounds, end = [], time.perf_counter() + seconds
    while len(rounds) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            result = call(*arguments)
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - start) / calls)
    return rounds


def matmul_rates(jax, size: int, seconds: float) -> dict[str, float]:
    """Operations a second of products of square matrices, the best seen, by precision."""
    rates = {}
    for name, dtype, precision in (
        ("float32", "float32", "default"),
        ("bfloat16", "bfloat16", "default"),
        ("full float32", "float32", "highest"),
    ):
        keys = jax.random.split(jax.random.key(0))
        pair = [jax.random.normal(key, (size, size), dtype) for key in keys]
        product = jax.jit(
            lambda a, b, precision=precision: jax.numpy.matmul(a, b, precision=precision)
        )
        rates[name] = 2 * size**3 / min(seconds_a_call(jax, product, pair, seconds))
    return rates


def measure(jax, folder: Path, seconds: float, size: int, checks_only: bool = False) -> dict:
    """What is printed: rates, and of each program its time, its share and its distance."""
    index = json.loads((folder / INDEX).read_text())
    rates = matmul_rates(jax, size, seconds)
    programs = []
    for entry in index["programs"]:
        found = loaded(jax, folder, entry["checked"])(*made_up(entry["checked"]["inputs"]))
        with np.load(folder / entry["reference"]) as stored:
            reference = list(stored.values())
        row = {name: entry[name] for name in TOLD}
        row["distance"] = distance(found, reference)
        row["right"] = row["distance"] <= max(TOLERANCE, 2 * row["tensorflow_distance"])
        if row["right"] and not checks_only:
            arguments = [jax.device_put(value) for value in made_up(entry["timed"]["inputs"])]
            call = loaded(jax, folder, entry["timed"])
            taken = statistics.median(seconds_a_call(jax, call, arguments, seconds))
            row["ms"] = 1e3 * taken
            row["examples_per_s"] = entry["batch_size"] / taken
            row["flops_per_s"] = entry["flops"] / taken
        # Said at once: a later program may need more memory than the device has.
        print(json.dumps(row), file=sys.stderr, flush=True)
        programs.append(row)
    after = matmul_rates(jax, size, seconds)
    rates = {name: max(rate, after[name]) for name, rate in rates.items()}
    for row in programs:
        if "ms" in row:
            row["share_of_matmul_rate"] = row["flops_per_s"] / rates[row["dtype"]]
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "tensorflow": index["tensorflow"],
        "matmul_size": size,
        "matmul_rates": rates,
        "programs": programs,
        "settings": index["settings"],
        "history": index["history"],
    }


def text(found: dict) -> str:
    """For people."""
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in found["matmul_rates"].items())
    lines = [
        f"{found['device']}, JAX {found['jax']}. Products of {found['matmul_size']} x "
        f"{found['matmul_size']}, TFLOP/s: {rates}.",
        "",
        "| program | precision | dispatch | rows | ms | examples/s | TFLOP/s | share "
        "| distance | TensorFlow's |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["programs"]:
        timed = "| | | | " if row["right"] else "| wrong | | | "
        if "ms" in row:
            timed = (
                f"| {row['ms']:.2f} | {row['examples_per_s']:,.0f} | "
                f"{row['flops_per_s'] / 1e12:.3g} | {row['share_of_matmul_rate']:.1%} "
            )
        names = f"| {row['program']} | {row['dtype']} | {row['dispatch']} | {row['batch_size']} "
        lines.append(f"{names}{timed}| {row['distance']:.1e} | {row['tensorflow_distance']:.1e} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Time StableHLO modules of loopctr_tf with JAX.")
    parser.add_argument("folder", type=Path, help="what gpu_roofline_export.py wrote")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--size", type=int, help="of the matrices; 8192, on a CPU 1024")
    parser.add_argument(
        "--check", action="store_true", help="compare with TensorFlow, time nothing"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    try:
        import jax
        import jax.export
    except ImportError:
        sys.exit("JAX is not installed: pip install 'jax[cuda13]', or 'jax[cpu]' to try it out")
    size = options.size or (1024 if jax.default_backend() == "cpu" else 8192)
    found = measure(jax, options.folder, options.seconds, size, options.check)
    print(text(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if not all(row["right"] for row in found["programs"]):
        sys.exit("some modules do not give what TensorFlow does; these were not timed")


if __name__ == "__main__":
    main()
