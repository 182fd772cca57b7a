"""A client's channel: its limits, how gRPC retries calls on it, and the error that a call raises."""

import json
from pathlib import Path
from typing import Any

import grpc

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.tls import channel_credentials

_MOST_ATTEMPTS = 5  # gRPC's own limit


class ScoringError(RuntimeError):
    """The server, or the way to it, gave an error instead of scores.

    Attributes:
      code: the ``grpc.StatusCode``.
      details: the server's message in full.
    """

    def __init__(self, code: grpc.StatusCode, details: str, where: str, remedy: str = ""):
        first = details.strip().split("\n", 1)[0]
        super().__init__(f"{code.name} from {where}: {first}{remedy}")
        self.code = code
        self.details = details


def channel_options(max_retries: int, max_message_bytes: int) -> list[tuple[str, Any]]:
    """Options of a channel that retries calls with status UNAVAILABLE, and no other.

    https://grpc.io/docs/guides/retry/
    """
    options = [
        # both have a limit of 4 MB by default
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # a request is retried only if it fits here; 256 KiB by default
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # a server that restarts is found again about as soon as a call is retried
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # despite its name: the time limit of one attempt to connect
        ("grpc.min_reconnect_backoff_ms", 2000),
    ]
    if not max_retries:
        return [*options, ("grpc.enable_retries", 0)]
    policy = {
        "maxAttempts": min(1 + max_retries, _MOST_ATTEMPTS),
        "initialBackoff": "0.05s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
    return [*options, ("grpc.service_config", json.dumps(config))]


def open_channel(
    module, target: str, options: list[tuple[str, Any]], credentials: grpc.ChannelCredentials | None
):
    """A channel of ``module``, grpc or grpc.aio; without TLS where there are no credentials."""
    if credentials is None:
        return module.insecure_channel(target, options)
    return module.secure_channel(target, credentials, options)


def choose_credentials(
    tls: bool | str | Path, credentials: grpc.ChannelCredentials | None
) -> grpc.ChannelCredentials | None:
    """The credentials of a channel; None for one without TLS.

    Raises:
      UsageError: when both are given, or the PEM file cannot be read.
    """
    if tls is False:
        return credentials
    if credentials is not None:
        raise UsageError("tls and credentials are both given; give one of them")
    return channel_credentials(None if tls is True else tls)
