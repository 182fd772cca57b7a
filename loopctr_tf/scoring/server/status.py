"""The error that the service answers with: a gRPC status code and a message for the caller."""

import grpc
import tensorflow as tf

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
_MESSAGE_LIMIT = 1024


class StatusError(Exception):
    """A request that cannot be served.

    Attributes:
      code: the ``grpc.StatusCode`` of the answer.
      message: the details of the answer; :func:`details` cuts them to what TF Serving sends.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def from_op_error(cls, error: tf.errors.OpError) -> "StatusError":
        """The status of a failed run: TensorFlow's error codes and gRPC's are the same numbers."""
        return cls(_BY_NUMBER.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)


def invalid_argument(message: str) -> StatusError:
    """A mistake in the request itself."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> StatusError:
    """A model or version that is not served."""
    return StatusError(grpc.StatusCode.NOT_FOUND, message)


def details(message: str) -> str:
    """The message as it is sent: cut after 1024 characters, and marked if it was."""
    if len(message) <= _MESSAGE_LIMIT:
        return message
    return message[:_MESSAGE_LIMIT] + "...TRUNCATED"
