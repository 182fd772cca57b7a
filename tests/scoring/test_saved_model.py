"""What running a graph raises, where the service depends on it."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.scoring.server import saved_model
from loopctr_tf.scoring.server.saved_model import SavedModel


@pytest.fixture(scope="module")
def model(saved):
    model = SavedModel(saved[1], 1)
    yield model
    model.close()


@pytest.mark.parametrize("garbage", [b"\xff" * 50, b"\x0a\x05cut", "é".encode("latin-1")])
def test_a_refusal_that_quotes_bytes_that_are_no_text_is_a_refusal(model, garbage):
    """TensorFlow's message holds the bytes of the tf.Example, and Python cannot read them as text."""
    signature = model.signature_defs["regress"]
    feeds = {signature.inputs["inputs"].name: np.array([garbage], object)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse example input"):
        model.run(feeds, (signature.outputs["outputs"].name,))


def test_callers_of_a_cold_signature_wait_for_one_preparation_of_it(model, monkeypatch):
    made, together = [], threading.Barrier(4)
    make = model._make_callable

    def counted(feeds, fetches):
        made.append(fetches)
        return make(feeds, fetches)

    monkeypatch.setattr(model, "_make_callable", counted)
    signature = model.signature_defs["dense"]
    feeds = {
        signature.inputs["x"].name: np.ones([2, 3], np.float32),
        signature.inputs["anything"].name: np.zeros([], np.int64),
    }

    def call(_):
        together.wait()
        return model.run(feeds, (signature.outputs["total"].name,))[0].tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [[3.0, 3.0]] * 4
    assert len(made) == 1


def test_memory_that_a_load_needed_for_a_moment_is_given_back(saved, monkeypatch):
    trims = []
    monkeypatch.setattr(saved_model, "_MALLOC_TRIM", trims.append)
    model = SavedModel(saved[1], 1)
    assert trims == [0]
    signature = model.signature_defs["regress"]
    feeds = {signature.inputs["inputs"].name: np.empty(0, object)}
    for _ in range(2):  # the second call makes nothing
        model.run(feeds, (signature.outputs["outputs"].name,))
        assert trims == [0, 0]
    model.close()
    assert trims == [0, 0, 0]


def test_a_closed_model_leaves_nothing_for_the_garbage_collector(saved):
    """A graph of ten megabytes takes hundreds in memory, and a full collection may be hours away."""
    gc.disable()
    try:
        model = SavedModel(saved[1], 1)
        graph = weakref.ref(model._session.graph)
        model.close()
        assert graph() is None
    finally:
        gc.enable()
