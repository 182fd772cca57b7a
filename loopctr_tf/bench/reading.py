"""`loopctr bench input`: how fast prepared rows are read, without a model."""

import time
from pathlib import Path
from typing import Any

from loopctr_tf.bench import machine
from loopctr_tf.bench.report import check_least
from loopctr_tf.features.dataset import data_errors, read_dataset


def bench_input(
    prepared: str | Path,
    batch_size: int = 512,
    seconds: float = 10.0,
    shuffle: bool = True,
    deterministic: bool = True,
) -> dict[str, Any]:
    """Measures how fast the training split of a prepared folder is read, shuffled and parsed.

    Args:
      prepared: the folder.
      batch_size: rows a batch.
      seconds: to measure for; the split is read again and again.
      shuffle, deterministic: of :func:`~loopctr_tf.features.dataset.read_dataset`.

    Returns:
      ``examples_per_s``, ``batches``, ``peak_memory_bytes``, ``machine``.
    """
    check_least("batch sizes", [batch_size])
    with data_errors():
        dataset = read_dataset(
            Path(prepared) / "train",
            batch_size=batch_size,
            shuffle=shuffle,
            deterministic=deterministic,
        )
        batches = iter(dataset.repeat())
        next(batches)  # fills the shuffle buffer
        rows = count = 0
        start = time.perf_counter()
        while not count or time.perf_counter() - start < seconds:
            _, label, *_ = next(batches)
            rows += int(label.shape[0])
            count += 1
        passed = time.perf_counter() - start
    return {
        "examples_per_s": rows / passed,
        "batches": count,
        "batch_size": batch_size,
        "peak_memory_bytes": machine.peak_memory_bytes(),
        "machine": machine.describe(),
    }
