"""What running a graph raises, where the service depends on it."""

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.scoring.saved_model import SavedModel


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
