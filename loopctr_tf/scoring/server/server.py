"""The embedded prediction server: a gRPC server for a ModelStore, from start to graceful stop."""

import concurrent.futures
import logging
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.server.model_store import ModelStore
from loopctr_tf.scoring.server.service import HEALTH_NAMES, Service

_log = logging.getLogger(__name__)


class PredictionServer:
    """Serves the newest version in a folder over gRPC, as TensorFlow Serving 2.21 would.

    Meant for development, tests and small loads. It speaks PredictionService, ModelService and
    the gRPC health protocol, and works with any TF2 SavedModel::

        with PredictionServer("models/loopctr", model_name="loopctr") as server:
            client = ScoringClient(server.target)

    Args:
      base_path: folder of versions, ``<base_path>/<number>/saved_model.pb``.
      model_name: the model's name in requests.
      version_labels: version by label, such as ``{"stable": 1, "canary": 2}``, for requests that
        ask for a label. These versions are served beside the newest; ``server.store.set_labels``
        moves labels.
      host: address to listen on; "0.0.0.0" for every interface.
      port: port to listen on; 0 takes a free one, which :attr:`port` returns.
      workers: requests answered at a time; others wait.
      poll_seconds: seconds between looks at the folder for a new version; 0 for never.
      max_message_bytes: largest request and response.
      grace_seconds: how long requests in progress may take when the server stops.
      credentials: from :func:`~loopctr_tf.scoring.tls.server_credentials`, for TLS.
      check_method_names: see :class:`~loopctr_tf.scoring.server.service.Service`.
    """

    def __init__(
        self,
        base_path: str | Path,
        *,
        model_name: str = "loopctr",
        version_labels: Mapping[str, int] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        workers: int = 8,
        poll_seconds: float = 1.0,
        max_message_bytes: int = 256 << 20,
        grace_seconds: float = 10.0,
        credentials: grpc.ServerCredentials | None = None,
        check_method_names: bool = True,
    ):
        for name, value, least in (
            ("workers", workers, 1),
            ("poll_seconds", poll_seconds, 0),
            ("max_message_bytes", max_message_bytes, 1),
            ("grace_seconds", grace_seconds, 0),
        ):
            if not value >= least:
                raise UsageError(f"{name} is {value!r}; give {least} or more")
        if not 0 <= port <= 65535:
            raise UsageError(f"port is {port!r}; give 0 (any free port) to 65535")
        if not model_name:
            raise UsageError("model_name is empty; give the model's name in requests")
        self.base_path = Path(base_path)
        self.model_name = model_name
        self._version_labels = version_labels
        self.host = host
        self._wanted_port = port
        self._workers = workers
        self._poll_seconds = poll_seconds
        self._max_message_bytes = max_message_bytes
        self._grace_seconds = grace_seconds
        self._credentials = credentials
        self._check_method_names = check_method_names
        self._store: ModelStore | None = None
        self._port: int | None = None
        self._stopped = False
        self._stopping = threading.Event()
        self._stop_lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port that the server listens on, once it is started."""
        if self._port is None:
            raise UsageError("the server has no port before it is started; call start()")
        return self._port

    @property
    def target(self) -> str:
        """``host:port`` for a client on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return _address(host, self.port)

    @property
    def store(self) -> ModelStore:
        """The versions of the started server's model; ``store.poll()`` looks for a new one at once."""
        return self._store

    def start(self) -> "PredictionServer":
        """Takes the port, loads the newest and the labelled versions, then answers.

        Callers that connect while it loads wait until it answers, or until their deadline.

        Raises:
          UsageError: for an address in use, or a model folder that cannot be served.
        """
        if self._store is not None:
            raise UsageError("this server was started before; make another PredictionServer")
        port = self._bind()  # first, for loading may take minutes
        try:
            store = ModelStore(self.model_name, self.base_path, self._version_labels)
        except BaseException:
            # gRPC releases the port only of a server that was started
            self._server.start()
            self._server.stop(None).wait()
            raise
        service = Service(store, self._max_message_bytes, self._check_method_names)
        self._server.add_generic_rpc_handlers(service.handlers())
        for name in HEALTH_NAMES:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server.start()
        self._store, self._port = store, port
        if self._poll_seconds:
            store.start_polling(self._poll_seconds)
        labels = "".join(f", {label} = {version}" for label, version in store.labels.items())
        served = "version %d of %s is served at %s%s"
        _log.info(served, store.version, self.model_name, self.target, labels)
        return self

    def _bind(self) -> int:
        """Makes the gRPC server and takes its port, without answering yet."""
        self._pool = concurrent.futures.ThreadPoolExecutor(
            self._workers, thread_name_prefix=f"serve-{self.model_name}"
        )
        self._server = grpc.server(
            self._pool,
            options=[
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", self._max_message_bytes),
                # two servers on one port would each get a share of the calls
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        address = _address(self.host, self._wanted_port)
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise UsageError(
                f"cannot listen on {address}: the address is in use or not this machine's; give "
                "another port, or 0 for a free one"
            ) from error

    def stop(self, grace_seconds: float | None = None) -> None:
        """Drains and stops: health says NOT_SERVING, new calls are refused, those in progress finish.

        Args:
          grace_seconds: how long calls may still take, then they are cancelled; None takes the
            server's own ``grace_seconds``.
        """
        with self._stop_lock:
            self._stopping.set()
            if self._store is None or self._stopped:
                return
            self._stopped = True
            self._health.enter_graceful_shutdown()
            grace = self._grace_seconds if grace_seconds is None else grace_seconds
            self._server.stop(grace).wait()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._store.close()

    def serve_forever(self) -> None:
        """Serves until SIGTERM, SIGINT or :meth:`stop`, then drains; starts first if it has not started.

        Signals are caught only in the main thread. A second one ends the process at once.
        """
        if self._store is None:
            self.start()
        numbers = (signal.SIGTERM, signal.SIGINT)
        if threading.current_thread() is not threading.main_thread():
            numbers = ()

        def note(number, frame):
            # in a thread, for the main one may hold the event's lock at this moment
            threading.Thread(target=self._stopping.set).start()

        before = {number: signal.signal(number, note) for number in numbers}
        try:
            self._stopping.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.stop()

    def __enter__(self) -> "PredictionServer":
        return self.start()

    def __exit__(self, *exc_info) -> None:
        self.stop()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
