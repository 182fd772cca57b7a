"""The warm-up requests that an export may hold, run before a version serves its first request.

The file is TensorFlow Serving's: a TFRecord of PredictionLog messages.
"""

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from loopctr_tf.scoring.server import examples, predict
from loopctr_tf.scoring.server.saved_model import SavedModel
from loopctr_tf.scoring.server.status import StatusError

FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000


def warm_up(model: SavedModel) -> int:
    """Runs the requests of a model's warm-up file, if it has one.

    Returns:
      How many were run.

    Raises:
      ValueError: when a record is not a PredictionLog, the model refuses it, or there are more
        records than MAX_RECORDS; the model is then not fit to serve.
      tf.errors.OpError: when the file cannot be read, or from the graph.
    """
    path = model.path / FILE
    if not path.is_file():
        return 0
    count = 0
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        count += 1
        if count > MAX_RECORDS:
            raise ValueError(
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
            )
        try:
            _run(model, prediction_log_pb2.PredictionLog.FromString(record))
        except DecodeError as error:
            raise ValueError(f"Failed to parse warmup record {count} from {path}") from error
        except StatusError as error:
            raise ValueError(f"warmup record {count} of {path}: {error.message}") from error
    return count


def _run(model: SavedModel, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        predict.predict(model, log.predict_log.request)
    elif kind == "classify_log":
        examples.classify(model, log.classify_log.request, check_method_names=False)
    elif kind == "regress_log":
        examples.regress(model, log.regress_log.request, check_method_names=False)
    else:
        raise ValueError(f"Unsupported log_type for warmup: {kind}")
