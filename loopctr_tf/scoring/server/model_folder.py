"""The folder of a model on disk: its versions, and whether their files change.

Free of TensorFlow.
"""

import contextlib
from pathlib import Path

from loopctr_tf.errors import UsageError

_MAX_VERSION = 2**63 - 1


def read_versions(base_path: Path) -> dict[int, Path]:
    """Folders by version number; a child whose name is not a number is not a version.

    Raises:
      UsageError: when the base path is not a folder that can be read.
    """
    try:
        children = sorted(base_path.iterdir())
    except OSError as error:
        raise UsageError(
            f"model folder {str(base_path)!r} cannot be read ({error.strerror}); give the folder "
            "that holds the numbered versions"
        ) from error
    return {
        int(child.name): child
        for child in children
        if child.name.isascii() and child.name.isdigit() and int(child.name) <= _MAX_VERSION
    }


def require_versions(base_path: Path) -> dict[int, Path]:
    """The same as :func:`read_versions`, and at least one.

    Raises:
      UsageError: when there is no version, or the folder cannot be read.
    """
    versions = read_versions(base_path)
    if versions:
        return versions
    remedy = "put the SavedModel into a subfolder whose name is a number, such as 1"
    if (base_path / "saved_model.pb").exists():
        remedy = f"it is a version itself: give its parent, {str(base_path.parent)!r}"
    raise UsageError(f"model folder {str(base_path)!r} holds no version; {remedy}")


def fingerprint(version: Path) -> tuple:
    """A value that changes with a version's files: their names, sizes and times."""
    found = []
    for path in sorted(version.rglob("*")):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
