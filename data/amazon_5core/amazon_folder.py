"""From tables of events and items to a prepared folder that names its source and protocol."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import STATS
from loopctr_tf.files import new_folder
from loopctr_tf.prepare.prepare import REJECTED, prepare_events
from loopctr_tf.prepare.rejects import Rejects

REJECTED_LINES = "rejected_lines.csv"
"""File of the prepared folder with the lines of the publisher's files that were left out."""

PREPARED = "prepared"
"""Folder within the new one, of what the library writes before facts are added."""

SPLIT_RULE = (
    "per user by time: the last event is test, the one before it valid, the rest train; events of one "
    "time in the order of the file; users with two events or fewer are all train"
)
NEGATIVE_RULE = (
    "one row of label 0 for each event, of an item that the user never had, drawn uniformly from the "
    "items of the split's own and earlier splits' events"
)


@dataclass(frozen=True)
class Tables:
    """What ``prepare_events`` reads.

    Attributes:
      events, items: files.
      names: for files that were made here the publisher's file they were made of.
      facts: for stats.json.
      expected: counts that the publisher's whole files have, "reviews", "users" or "items".
    """

    events: Path
    items: Path
    names: Mapping[Path, Path]
    facts: Mapping[str, Any]
    expected: Mapping[str, int] = field(default_factory=dict)


def prepare_tables(
    schema: Path,
    out: str | Path,
    read: Callable[[Path, Rejects, Callable[[int], Any]], Tables],
    skip_bad: bool,
    workers: int | None,
    progress: bool,
) -> dict[str, Any]:
    """Builds the prepared folder ``out``, which appears only once all of it is written.

    Args:
      schema: schema.yaml with a section `build`.
      out: must not exist.
      read: makes the tables; called with a folder for them, rejects and a function that is told of
        events that were read.
      skip_bad: leave bad lines and rows out, count them, and keep them in ``REJECTED_LINES`` and
        "rejected.csv".
      workers: processes that write; None takes all cores.
      progress: show bars.

    Returns:
      What is in ``stats.json``.

    Raises:
      UsageError: as ``read`` and ``prepare_events``; the publisher's files are named.
    """
    with new_folder(out) as folder:
        parts = folder / "parts"
        parts.mkdir()
        with (
            Rejects(folder / REJECTED_LINES if skip_bad else None) as rejects,
            tqdm(desc="parsing", unit=" events", disable=not progress) as bar,
        ):
            tables = read(parts, rejects, bar.update)
        with _named(tables.names):
            stats = prepare_events(
                schema,
                tables.events,
                folder / PREPARED,
                items=tables.items,
                skip_bad=skip_bad,
                workers=workers,
                progress=progress,
            )
        rejected = folder / PREPARED / REJECTED
        if rejected.exists():
            rejected.write_text(_renamed(rejected.read_text(), tables.names))
        shutil.rmtree(parts)
        found = {"reviews": stats["events"]["used"], "users": stats["users"]}
        facts = {
            "protocol": "honest",
            **tables.facts,
            "split": SPLIT_RULE,
            "negatives": NEGATIVE_RULE,
            **counted(tables.expected, found | {"items": stats["items"]}),
            "rejected_lines": rejects.counts,
        }
        return settle(folder, stats, facts)


def settle(folder: Path, stats: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Lets what lies in ``folder``/prepared be all of ``folder``, with ``facts`` in its stats.json.

    Returns:
      What is in ``stats.json`` now.
    """
    stats = {**facts, **stats}
    (folder / PREPARED / STATS).write_text(json.dumps(stats, indent=2) + "\n")
    for path in (folder / PREPARED).iterdir():
        path.rename(folder / path.name)
    (folder / PREPARED).rmdir()
    return stats


def counted(expected: Mapping[str, int], found: Mapping[str, int]) -> dict[str, Any]:
    """The counts of the publisher's whole files for stats.json, and a warning for each difference."""
    return {
        "expected": dict(expected),
        "warnings": [
            f"{found[name]:,} {name} were found, and the publisher's whole files have {count:,}; "
            "figures are not comparable with those of others unless that is meant"
            for name, count in expected.items()
            if found[name] != count
        ],
    }


@contextmanager
def _named(names: Mapping[Path, Path]):
    """Lets a UsageError name the publisher's files."""
    try:
        yield
    except UsageError as error:
        raise UsageError(_renamed(str(error), names)) from error


def _renamed(text: str, names: Mapping[Path, Path]) -> str:
    for made, source in names.items():
        text = text.replace(str(made), str(source))
    return text
