import doctest
import importlib

import pytest
import tensorflow as tf

from loopctr_tf import layers

EXAMPLES = {
    example.name.rpartition(".")[2]: example
    for module in sorted({getattr(layers, name).__module__ for name in layers.__all__})
    for example in doctest.DocTestFinder(exclude_empty=True).find(
        importlib.import_module(module), extraglobs={"tf": tf}
    )
    if example.examples
}


LAYERS = [name for name in layers.__all__ if not hasattr(getattr(layers, name), "_fields")]


@pytest.mark.parametrize("name", LAYERS)
def test_the_example_in_the_docstring_runs(name):
    results = doctest.DocTestRunner().run(EXAMPLES[name])
    assert results.failed == 0
    assert results.attempted > 0
