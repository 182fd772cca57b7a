"""The kit's scripts and what they share, importable as when they are run."""

import importlib
import sys

from tests.serving.kit import ROOT


def script(name: str):
    """A module in ``serving/``: "soak", "load_test" or one of the package "traffic"."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(name)
