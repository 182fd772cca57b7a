"""From a publisher's files, through tables of events, items and users, to a prepared folder."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SHARD_ROWS, STATS
from loopctr_tf.files import new_folder
from loopctr_tf.prepare.prepare import REJECTED, prepare_events
from loopctr_tf.prepare.rejects import Rejects

REJECTED_LINES = "rejected_lines.csv"
"""File of the prepared folder with the lines of the publisher's files that were left out."""
_PREPARED = "prepared"
"""Folder within the new one, of what the library writes before facts are added."""


@dataclass(frozen=True)
class Tables:
    """What ``prepare_events`` reads.

    Attributes:
      events, items, users: files; of events also several, in order.
      names: for files made by the recipe, the publisher's file that they were made of.
      facts: for stats.json.
      published: counts of the publisher's whole files, by "reviews", "users" or "items".
    """

    events: Path | Sequence[Path]
    items: Path | None = None
    users: Path | None = None
    names: Mapping[Path, Path] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)


Read = Callable[[Path, Rejects, Callable[[int], Any]], Tables]
"""Makes the tables; gets a folder for them, rejects, and a function to call with events read."""


def prepare_tables(
    template: Path,
    out: str | Path,
    read: Read,
    *,
    change: Callable[[dict[str, Any]], Any] = lambda schema: None,
    facts: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = False,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Builds the prepared folder ``out``, which appears only when complete.

    Args:
      template: schema.yaml with a section `build`.
      out: must not exist.
      read: makes the tables.
      change: changes the values of the template, for the options of a recipe.
      facts: added to stats.json, where they replace the library's.
      skip_bad: leave bad lines and rows out, count them, and list them in ``REJECTED_LINES`` and
        rejected.csv.
      workers, progress, shard_rows: as for ``prepare_events``.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: as ``read`` and ``prepare_events``; the publisher's files are named.
    """
    with new_folder(out) as folder:
        made = folder / "tables"
        made.mkdir()
        with (
            Rejects(folder / REJECTED_LINES if skip_bad else None) as rejects,
            tqdm(desc="parsing", unit=" events", disable=not progress) as bar,
        ):
            tables = read(made, rejects, bar.update)
        schema = yaml.safe_load(template.read_text(encoding="utf-8"))
        change(schema)
        (made / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
        with _named(tables.names):
            stats = prepare_events(
                made / "schema.yaml",
                tables.events,
                folder / _PREPARED,
                items=tables.items,
                users=tables.users,
                skip_bad=skip_bad,
                workers=workers,
                progress=progress,
                shard_rows=shard_rows,
            )
        shutil.rmtree(made)
        if (rejected := folder / _PREPARED / REJECTED).exists():
            rejected.write_text(_renamed(rejected.read_text(), tables.names))
        found = stats | {"reviews": stats["events"]["used"]}
        compared = compare(tables.published, found) if tables.published else {}
        given = (stats, compared, tables.facts)
        warnings = [line for some in given for line in some.get("warnings", ())]
        own = {**tables.facts, **(facts or {}), "rejected_lines": rejects.counts} | compared
        own["warnings"] = warnings
        stats = own | stats | own
        (folder / _PREPARED / STATS).write_text(json.dumps(stats, indent=2) + "\n")
        for path in (folder / _PREPARED).iterdir():
            path.rename(folder / path.name)
        (folder / _PREPARED).rmdir()
        return stats


def compare(published: Mapping[str, int], found: Mapping[str, int]) -> dict[str, Any]:
    """For stats.json: counts beside those of the publisher's whole files, warnings where they differ."""
    return {
        "row_counts": {
            name: {"found": found[name], "published": count} for name, count in published.items()
        },
        "warnings": [
            f"{found[name]:,} {name} were found, and the publisher's whole files have {count:,}; "
            "figures are not comparable with those of others unless that is meant"
            for name, count in published.items()
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
