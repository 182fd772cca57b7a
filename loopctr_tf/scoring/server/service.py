"""The gRPC methods: tensorflow.serving.PredictionService and ModelService over a ModelStore."""

import functools
import logging
from collections.abc import Callable

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2,
    prediction_service_pb2,
)

from loopctr_tf.scoring.server import examples, predict
from loopctr_tf.scoring.server.model_store import ModelStore, Wanted, not_served
from loopctr_tf.scoring.server.status import StatusError, details, invalid_argument, not_found

_log = logging.getLogger(__name__)
_PREDICTION_SERVICE = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
# the empty name is the server as a whole; TensorFlow Serving has the short names
HEALTH_NAMES = (
    "",
    *(name for one in (_PREDICTION_SERVICE, _MODEL_SERVICE) for name in (one.full_name, one.name)),
)
_SIGNATURE_FIELD = "signature_def"


class Service:
    """Answers requests for the one model of a store, with TensorFlow Serving's codes and messages.

    Args:
      store: the model.
      max_bytes: most memory that one unpacked input may take.
      check_method_names: Classify and Regress refuse signatures of another method_name, like a model
        server started with ``--enable_signature_method_name_check``.
    """

    def __init__(self, store: ModelStore, max_bytes: int, check_method_names: bool = True):
        self._store = store
        self._max_bytes = max_bytes
        self._check_method_names = check_method_names

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Both services, for ``grpc.Server.add_generic_rpc_handlers``."""
        methods = {
            "Predict": self._runs(predict.predict, self._max_bytes),
            "Classify": self._runs(examples.classify, self._check_method_names),
            "Regress": self._runs(examples.regress, self._check_method_names),
            "GetModelMetadata": self.get_model_metadata,
            "GetModelStatus": self.get_model_status,
        }
        return [
            grpc.method_handlers_generic_handler(
                service.full_name,
                {
                    rpc.name: grpc.unary_unary_rpc_method_handler(
                        # no request_deserializer: gRPC answers INTERNAL to what does not parse
                        functools.partial(
                            _answer, methods[rpc.name], GetMessageClass(rpc.input_type)
                        ),
                        response_serializer=lambda response: response.SerializeToString(),
                    )
                    for rpc in service.methods
                    if rpc.name in methods  # gRPC answers UNIMPLEMENTED to the rest
                },
            )
            for service in (_PREDICTION_SERVICE, _MODEL_SERVICE)
        ]

    def _runs(self, answer: Callable[..., Message], option: int | bool) -> Callable:
        """A method that answers from the model of the request."""

        def method(request: Message) -> Message:
            with self._model(request) as model:
                return answer(model, request, option)

        return method

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of the model."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != _SIGNATURE_FIELD:
                raise invalid_argument(f"Metadata field {field} is not supported")
        with self._model(request) as model:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in model.signature_defs.items():
                signatures.signature_def[name].CopyFrom(signature)
            spec = model_pb2.ModelSpec(name=self._store.name)
            spec.version.value = model.version
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec)
        response.metadata[_SIGNATURE_FIELD].Pack(signatures)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of each version, or of the one asked for by number or label.

        A model server ignores a label here, and lists every version.
        """
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        wanted = _wanted(spec)
        states = self._store.states(wanted) if spec.name == self._store.name else {}
        if not states:
            which = f"version {wanted}" if isinstance(wanted, int) else "any versions"
            raise not_found(f"Could not find {which} of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        # newest first, as a model server lists them
        for number, found in sorted(states.items(), reverse=True):
            one = response.model_version_status.add(version=number, state=found.state)
            one.status.error_code = found.code.value[0]
            one.status.error_message = found.message
        return response

    def _model(self, request):
        """The model that the request's model_spec names, as a context manager."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        if spec.name != self._store.name:
            raise not_served(spec.name, _wanted(spec))
        return self._store.use(_wanted(spec))


def _wanted(spec: model_pb2.ModelSpec) -> Wanted:
    if spec.HasField("version"):
        return spec.version.value
    return spec.version_label if spec.HasField("version_label") else None


def _answer(
    method: Callable[[Message], Message],
    request: type[Message],
    data: bytes,
    context: grpc.ServicerContext,
) -> Message:
    """Calls a method, and turns what it raises into a status."""
    try:
        # the request may have waited for a worker until its caller gave up
        if not context.is_active():
            raise StatusError(grpc.StatusCode.CANCELLED, "the caller has gone")
        return method(request.FromString(data))
    except DecodeError:
        name = request.DESCRIPTOR.full_name
        status = invalid_argument(f"the request is not a {name} message")
    except StatusError as error:
        status = error
    except tf.errors.OpError as error:
        status = StatusError.from_op_error(error)
    except MemoryError:
        status = StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory")
    except Exception:
        _log.exception("a request failed in the service itself")
        status = StatusError(grpc.StatusCode.INTERNAL, "internal error of the service; see its log")
    context.abort(status.code, details(status.message))
