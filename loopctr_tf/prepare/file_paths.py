"""Which files a table has, in what format, and which columns they have in common."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from loopctr_tf.errors import UsageError

FILE = "__file"
"""Column of a scan that holds the path of the row's file, as given."""
TAB_SUFFIXES = (".tsv", ".inter", ".user", ".item")
"""Of files delimited by tabs: those of RecBole too."""

_FORMATS = {
    "parquet": (".parquet", ".pq"),
    "json": (".jsonl", ".ndjson", ".json"),
    "text": (".csv", *TAB_SUFFIXES),
}
_SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
_KIND = "Parquet, CSV or JSON lines file"
_MAGIC = b"PAR1"
_PARTITION = re.compile(r"([^=]+)=.*")


def data_files(paths: str | Path | Sequence[str | Path], what: str) -> list[Path]:
    """The files of ``paths``, with folders replaced by their data files.

    Raises:
      UsageError: if a path does not exist, or a folder holds no data files or others.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += _files_of(path)
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{what}: {str(path)!r} does not exist; name a {_KIND}")
    if not files:
        raise UsageError(f"{what}: no files are named; give at least one {_KIND}")
    return files


def _files_of(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name[0] in "._":
            continue
        if path.is_dir() and _PARTITION.fullmatch(path.name):
            found += _files_of(path)
        elif path.is_dir() or not is_named(path, _SUFFIXES):
            raise UsageError(
                f"folder {str(folder)!r} holds {path.name!r}, which is not a {_KIND}; name the files "
                "themselves"
            )
        else:
            found.append(path)
    if not found:
        raise UsageError(f"folder {str(folder)!r} holds no {_KIND}; name another")
    return found


def partition_keys(paths: Sequence[Path], what: str) -> list[str]:
    """Keys of the Hive folders that all of ``paths`` are in."""
    keys = [
        [match[1] for part in path.parts[:-1] if (match := _PARTITION.fullmatch(part))]
        for path in paths
    ]
    for path, some in zip(paths, keys, strict=True):
        if some != keys[0]:
            raise UsageError(
                f"{what}: {str(paths[0])!r} has the partitions {keys[0]} and {str(path)!r} has {some}; "
                "store all files under the same"
            )
    return keys[0]


def checked_names(paths, files: Sequence[list[tuple[str, object]]], what: str) -> list[str]:
    """Names of the columns of all files, in the order in which they occur."""
    spellings: dict[str, str] = {}
    lists: dict[str, tuple[bool, Path]] = {}
    for path, columns in zip(paths, files, strict=True):
        own = [name for name, _ in columns]
        for name, kind in columns:
            if own.count(name) > 1:
                raise UsageError(f"{str(path)!r} has column {name!r} more than once; keep one")
            if name == FILE:
                raise UsageError(
                    f"{str(path)!r} has a column {FILE!r}, which is reserved; rename it"
                )
            other = spellings.setdefault(name.lower(), name)
            if other != name:
                raise UsageError(
                    f"{what}: columns {other!r} and {name!r} (in {str(path)!r}) differ only in case; "
                    "rename one"
                )
            if isinstance(kind, pa.DataType):
                nested = pa.types.is_nested(kind)
                first = (
                    lists.setdefault(name, (nested, path)) if not pa.types.is_null(kind) else None
                )
                if first and first[0] != nested:
                    raise UsageError(
                        f"{what}: column {name!r} holds lists in one of {str(first[1])!r} and "
                        f"{str(path)!r} and single values in the other; write both files alike"
                    )
    return list(spellings.values())


def format_of(path: Path) -> str:
    """ "parquet", "json" or "text", by the file's name, else by its first bytes."""
    for name, suffixes in _FORMATS.items():
        if is_named(path, suffixes):
            return name
    try:
        with path.open("rb") as file:
            return "parquet" if file.read(len(_MAGIC)) == _MAGIC else "text"
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}; name another") from error


def is_named(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the file's name, without .gz, ends in one of ``suffixes``."""
    return path.name.lower().removesuffix(".gz").endswith(suffixes)
