"""Scores a file of rows through a server into a CSV."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.client.channel import ScoringError
from loopctr_tf.scoring.client.client import ScoringClient


def score_rows(
    rows: str | Path,
    out: str | Path,
    target: str,
    model_name: str = "loopctr",
    signature: str = "serving_default",
    batch_size: int = 512,
    timeout_s: float = 10.0,
    version_label: str | None = None,
) -> int:
    """Scores ``rows`` with a pointwise signature, in order, into the CSV ``out``.

    Args:
      rows: split of a prepared folder, Parquet file, or JSON lines (``.jsonl``).
      out: CSV to write; columns ``row`` (from 0, in the order of ``rows``) and ``probability``, or
        ``probability_0`` ... for ``all_depths``.
      target: host:port of the server.
      model_name, signature: what requests ask for.
      batch_size: rows per request.
      timeout_s: seconds per call.
      version_label: see :class:`~loopctr_tf.scoring.client.base.BaseClient`.

    Returns:
      Number of rows written. ``out`` appears only when all are.

    Raises:
      UsageError: for rows that cannot be read, a CSV that cannot be written, or an error
        status of the server.
    """
    rows, out = Path(rows), Path(out)
    if out.is_dir():  # otherwise only the last step, the renaming, would fail
        raise _unwritable(out, "Is a directory")
    batches = _batches(rows, batch_size)
    first = next(batches, None)
    if first is None:
        raise UsageError(f"{str(rows)!r} has no rows; nothing to score")
    partial = out.with_name(out.name + ".partial")
    written = 0
    try:
        with (
            ScoringClient(
                target, model_name, timeout_s=timeout_s, version_label=version_label
            ) as client,
            open(partial, "w", encoding="utf-8") as file,
        ):
            wanted = client.signatures().get(signature)
            if wanted is None:
                raise UsageError(
                    f"signature {signature!r} is not served; "
                    f"choose {', '.join(sorted(client.signatures()))}"
                )
            for batch in itertools.chain([first], batches):
                features = {name: batch[name] for name in wanted.inputs if name in batch}
                scores = client.score(features, signature)
                columns = (
                    ["probability"]
                    if scores.ndim == 1
                    else [f"probability_{depth}" for depth in range(scores.shape[1])]
                )
                frame = pd.DataFrame(scores.reshape(len(scores), -1), columns=columns)
                frame.insert(0, "row", range(written, written + len(frame)))
                frame.to_csv(file, index=False, header=written == 0)
                written += len(frame)
        os.replace(partial, out)
    except ScoringError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise _unwritable(out, error.strerror) from error
    finally:
        # it may not exist, or not be able to (a path through a file)
        with contextlib.suppress(OSError):
            partial.unlink()
    return written


def _unwritable(out: Path, problem: str) -> UsageError:
    return UsageError(
        f"{str(out)!r} cannot be written: {problem}; name a CSV file in a folder that exists"
    )


def _batches(rows: Path, batch_size: int) -> Iterator[dict[str, np.ndarray] | pd.DataFrame]:
    if not rows.exists():
        raise UsageError(f"{str(rows)!r} does not exist; name the rows to score")
    if rows.is_dir():
        from loopctr_tf.features.dataset import data_errors, read_dataset

        with data_errors():
            for features, _ in read_dataset(rows, batch_size=batch_size):
                yield {name: value.numpy() for name, value in features.items()}
        return
    frame = _read_frame(rows)
    for start in range(0, len(frame), batch_size):
        yield frame.iloc[start : start + batch_size]


def _read_frame(path: Path) -> pd.DataFrame:
    readers = {
        ".parquet": pd.read_parquet,
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False, convert_dates=False),
    }
    if path.suffix not in readers:
        raise UsageError(
            f"{str(path)!r} is neither a folder, .parquet nor .jsonl; convert it to one of them"
        )
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UsageError(f"{str(path)!r} cannot be read: {problem}") from error
