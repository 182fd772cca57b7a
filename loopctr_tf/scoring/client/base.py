"""What both clients have in common: their arguments and their methods."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.client.calls import Caller, Examples, Features, Metadata, Policy, Wire
from loopctr_tf.scoring.client.signature import DEFAULT
from loopctr_tf.scoring.tls import channel_credentials

# what the methods give back: the thing itself, or an awaitable of it
Scores = TypeVar("Scores")
Outputs = TypeVar("Outputs")
Classes = TypeVar("Classes")
Signatures = TypeVar("Signatures")


@dataclass(frozen=True)
class Address:
    """Where a server is, and how to speak with it."""

    target: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, Any], ...]

    def open(self, module) -> grpc.Channel | grpc.aio.Channel:
        """A channel of ``grpc`` or ``grpc.aio``."""
        if self.credentials is None:
            return module.insecure_channel(self.target, self.options)
        return module.secure_channel(self.target, self.credentials, self.options)


class BaseClient(Generic[Scores, Outputs, Classes, Signatures]):
    """A client of one model on one server; see :class:`ScoringClient` and its asyncio twin.

    Args:
      target: ``host:port`` of a TensorFlow Serving gRPC port or a PredictionServer.
      model_name: the model's name on the server.
      version: insist on one version; None takes the newest that is served.
      version_label: ask for the version that the server knows by this label, such as "stable".
      signature_name: the signature of calls that name none.
      timeout_s: seconds for a call, with all its chunks, retries and pauses.
      max_retries: how often a call is made again that finds the server unavailable (status
        UNAVAILABLE, and no other), after pauses that double from 50 ms up to 2 s.
      chunk_size: most rows, or requests times candidates, sent at a time; more are split and the
        scores put together again. Signatures that weigh candidates against each other (all whose
        names do not begin with ``rank``) are split between requests only.
      tls: True for TLS with the system's authorities, or a PEM file of authorities.
      credentials: gRPC channel credentials, for everything else (client certificates, call tokens).
      metadata: pairs sent with every call, or a function that returns them for each call, such as
        ``lambda: [("authorization", f"Bearer {token()}")]``. Names are lower case.
      max_message_bytes: largest request and response.

    Raises:
      UsageError: for an argument that cannot be.
    """

    _connect: Callable[[Address], Wire]

    def __init__(
        self,
        target: str,
        model_name: str = "loopctr",
        *,
        version: int | None = None,
        version_label: str | None = None,
        signature_name: str = DEFAULT,
        timeout_s: float = 10.0,
        max_retries: int = 4,
        chunk_size: int = 4096,
        tls: bool | str | Path = False,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata | Callable[[], Metadata] = (),
        max_message_bytes: int = 1 << 30,
    ):
        if not target:
            raise UsageError("target is empty; give host:port of the server's gRPC port")
        policy = Policy(
            target=target,
            model_name=model_name,
            version=version,
            version_label=version_label,
            signature_name=signature_name,
            timeout_s=timeout_s,
            max_retries=max_retries,
            chunk_size=chunk_size,
            metadata=metadata,
        )
        options = (
            # both have a limit of 4 MB to begin with
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # a server that restarts is found again about as soon as a call is tried again
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            # what its name does not say: how long to connect may take
            ("grpc.min_reconnect_backoff_ms", 2000),
        )
        self.target = target
        self._wire = self._connect(Address(target, _credentials(tls, credentials), options))
        self._caller = Caller(policy, self._wire)

    def score(
        self,
        features: Features,
        signature: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Scores:
        """The output ``probability`` (or the only one there is).

        Args:
          features: values for every input of the signature.
          signature: its name; None takes the client's ``signature_name``.
          timeout: seconds for this call; None takes the client's ``timeout_s``.
          metadata: pairs sent with this call beside the client's own.

        Returns:
          float32 [B] for pointwise signatures, [R, N] for ``rank_...``, [B, depths] for
          ``all_depths``.
        """
        terms = self._caller.terms(timeout, metadata)
        return self._carry_out(self._caller.score(features, signature, terms))

    def predict(
        self,
        features: Features,
        signature: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
        outputs: Sequence[str] | None = None,
    ) -> Outputs:
        """Outputs by name, all or those asked for; strings are objects of bytes.

        Args are those of :meth:`score`.
        """
        terms = self._caller.terms(timeout, metadata)
        return self._carry_out(self._caller.predict(features, signature, outputs, terms))

    def classify(
        self,
        examples: Examples,
        signature: str = "classify",
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Classes:
        """Class labels (objects of str) and scores (float32), each [B, C], of tf.Examples."""
        terms = self._caller.terms(timeout, metadata)
        return self._carry_out(self._caller.classify(examples, signature, terms))

    def regress(
        self,
        examples: Examples,
        signature: str = "regress",
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Scores:
        """Values float32 [B] of tf.Examples, given as messages or serialized."""
        terms = self._caller.terms(timeout, metadata)
        return self._carry_out(self._caller.regress(examples, signature, terms))

    def signatures(self, timeout: float | None = None) -> Signatures:
        """What the model takes and gives, by signature name."""
        return self._carry_out(self._caller.signatures(self._caller.terms(timeout)))

    def refresh(self) -> None:
        """Forgets the model's signatures; the next call asks for them again.

        They are asked for once, and again by themselves when another version answers, when features
        do not fit, and when the server refuses a request.
        """
        self._caller.forget()

    def _carry_out(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of the work, or an awaitable of it."""
        raise NotImplementedError


def _credentials(
    tls: bool | str | Path, credentials: grpc.ChannelCredentials | None
) -> grpc.ChannelCredentials | None:
    if tls is False:
        return credentials
    if credentials is not None:
        raise UsageError("tls and credentials are both given; give one of them")
    return channel_credentials(None if tls is True else tls)
