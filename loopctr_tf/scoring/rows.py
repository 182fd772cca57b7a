"""Scores a file of rows through a server into a CSV."""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.client.channel import ScoringError
from loopctr_tf.scoring.client.client import ScoringClient
from loopctr_tf.scoring.row_files import Batch, id_column, read_batches, typed

_NAMED = (
    *("user", "customer", "member", "visitor", "reviewer", "item", "article", "product", "ad"),
    *(
        "adgroup",
        "movie",
        "video",
        "book",
        "track",
        "song",
        "news",
        "goods",
        "creative",
        "impression",
    ),
    *("row", "request", "session"),
)
_ID = re.compile(rf"({'|'.join(_NAMED)})_?id|user|item|u_?id|i_?id|asin|sku", re.IGNORECASE)
"""Names of columns that say which row it is."""


def score_rows(
    rows: str | Path,
    out: str | Path,
    target: str,
    model_name: str = "loopctr",
    signature: str = "serving_default",
    batch_size: int = 512,
    timeout_s: float = 10.0,
    version_label: str | None = None,
    *,
    ids: Sequence[str] | None = None,
    separators: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    quoting: bool = True,
    overwrite: bool = False,
) -> int:
    """Scores ``rows`` with a pointwise signature, in order, into the CSV ``out``.

    Args:
      rows: split of a prepared folder, or a file: see :func:`row_files.read_batches`. Values are
        spelt as ``prepare`` spells them, see :mod:`loopctr_tf.features.values`.
      out: CSV to write; columns ``row`` (from 0, in the order of ``rows``), the ids, and
        ``probability``, or ``probability_0`` ... for ``all_depths``.
      target: host:port of the server.
      model_name, signature: what requests ask for.
      batch_size: rows per request.
      timeout_s: seconds per call.
      version_label: see :class:`~loopctr_tf.scoring.client.base.BaseClient`.
      ids: columns of ``rows`` to repeat in ``out``; None takes those called like the id of a user, an
        item or a row, and the group of a prepared folder.
      separators: by column, what separates the values of a list in a cell of text; JSON otherwise.
      delimiter: of CSV files; None is "," or, for ``.tsv``, a tab.
      quoting: whether quotes enclose cells of CSV files.
      overwrite: replace an ``out`` that exists.

    Returns:
      Number of rows written. ``out`` appears only when all are.

    Raises:
      UsageError: for rows that cannot be read, a CSV that cannot be written, or an error
        status of the server.
    """
    rows, out = Path(rows), Path(out)
    if out.is_dir():  # otherwise only the last step, the renaming, would fail
        raise _unwritable(out, "Is a directory")
    if out.exists() and not overwrite:
        raise UsageError(f"{str(out)!r} exists; name another file, or give --overwrite")
    batches = _batches(rows, batch_size, delimiter, quoting)
    first = next(batches, None)
    if first is None:
        raise UsageError(f"{str(rows)!r} has no rows; nothing to score")
    shown = _id_columns(rows, first, ids)
    separators = separators or {}
    for name in separators:
        if name not in first:
            raise UsageError(
                f"--separator names column {name!r}, which {str(rows)!r} lacks; it has "
                f"{', '.join(first)}"
            )
    partial = out.with_name(out.name + ".partial")
    written = 0
    try:
        with (
            ScoringClient(
                target, model_name, timeout_s=timeout_s, version_label=version_label
            ) as client,
            open(partial, "w", encoding="utf-8", newline="") as file,
        ):
            wanted = client.signatures().get(signature)
            if wanted is None:
                raise UsageError(
                    f"signature {signature!r} is not served; "
                    f"choose {', '.join(sorted(client.signatures()))}"
                )
            for batch in itertools.chain([first], batches):
                features = {
                    name: batch[name]
                    if rows.is_dir()
                    else typed(name, batch[name], info, written, separators.get(name))
                    for name, info in sorted(wanted.inputs.items())
                    if name in batch
                }
                scores = client.score(features, signature)
                columns = (
                    ["probability"]
                    if scores.ndim == 1
                    else [f"probability_{depth}" for depth in range(scores.shape[1])]
                )
                frame = pd.DataFrame(scores.reshape(len(scores), -1), columns=columns)
                for place, name in enumerate(shown):
                    frame.insert(place, name, id_column(name, _listed(batch[name]), written))
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


def _id_columns(rows: Path, batch: Batch, wanted: Sequence[str] | None) -> list[str]:
    """The columns of ``batch`` that the answer repeats."""
    for name in wanted or ():
        if name not in batch:
            raise UsageError(
                f"--ids names column {name!r}, which {str(rows)!r} lacks; it has {', '.join(batch)}"
            )
        if name == "row" or name.startswith("probability"):
            raise UsageError(
                f"--ids names column {name!r}, as the answer's own is called; rename it"
            )
    if wanted is not None:
        return list(dict.fromkeys(wanted))
    group = None
    if rows.is_dir():
        from loopctr_tf.features.schema import Schema

        group = Schema.load(rows.parent).group
    found = [n for n, column in batch.items() if _ID.fullmatch(n) and not _has_lists(column)]
    return found if group is None else [group, *(name for name in found if name != group)]


def _has_lists(column) -> bool:
    if isinstance(column, list):
        return any(isinstance(value, (list, dict)) for value in column)
    if isinstance(column, pa.Array):
        return pa.types.is_nested(column.type)
    return column.ndim > 1


def _listed(column) -> pa.Array | list:
    """A column of a prepared folder as a list of Python's values."""
    if isinstance(column, np.ndarray):
        return [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for value in column.tolist()
        ]
    return column


def _batches(rows: Path, batch_size: int, delimiter: str | None, quoting: bool) -> Iterator[Batch]:
    if not rows.exists():
        raise UsageError(f"{str(rows)!r} does not exist; name the rows to score")
    if not rows.is_dir():
        yield from read_batches(rows, batch_size, delimiter, quoting)
        return
    from loopctr_tf.features.dataset import data_errors, read_dataset

    with data_errors():
        for features, *_ in read_dataset(rows, batch_size=batch_size, group=True):
            yield {name: value.numpy() for name, value in features.items()}
