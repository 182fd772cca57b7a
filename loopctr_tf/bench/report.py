"""What the benchmarks' reports have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from loopctr_tf.bench import machine
from loopctr_tf.errors import UsageError
from loopctr_tf.training.settings import RunConfig

Log = Callable[[str], None]
"""Takes lines about progress, for people."""


def silent(line: str) -> None:
    """The default :data:`Log`."""


def described(config: RunConfig, **training: Any) -> dict[str, Any]:
    """The machine and all settings; ``training`` replaces settings of that section."""
    return {
        "machine": machine.describe(),
        "model": config.name,
        "settings": config.model.to_dict(),
        "execution": config.execution.to_dict(),
        "training": {**config.training.to_dict(), **training},
    }


def check_least(name: str, numbers: Sequence[int], least: int = 1) -> None:
    """Raises UsageError for numbers that are too small."""
    if min(numbers) < least:
        raise UsageError(f"{name} are {list(numbers)}; give {least} or more")
