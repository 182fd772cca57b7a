"""What an export answers when TensorFlow alone runs it, without a server."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring.client.signature import read_signatures


class Reference:
    """An export, loaded.

    Args:
      path: the folder that holds ``saved_model.pb``.

    Attributes:
      schema: of its features.
      signatures: name -> :class:`loopctr_tf.scoring.Signature`.

    Raises:
      UsageError: when it is no export of this library.
    """

    def __init__(self, path: Path):
        try:
            self.schema = Schema.load(path / "assets")
            saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
            self._model = tf.saved_model.load(str(path))
        except (DecodeError, OSError, ValueError, tf.errors.OpError) as error:
            problem = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{str(path)!r} is no export of this library ({problem}); give a folder that "
                "`loopctr export` made"
            ) from error
        self.signatures = read_signatures(saved.meta_graphs[0].signature_def)

    def outputs(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature; strings go in as str or bytes and come out as bytes."""
        function = self._model.signatures[name]
        specs = function.structured_input_signature[1]
        given = {alias: tf.constant(value, specs[alias].dtype) for alias, value in inputs.items()}
        return {alias: value.numpy() for alias, value in function(**given).items()}
