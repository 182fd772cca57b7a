"""TLS for client and server, from PEM files."""

from pathlib import Path

import grpc

from loopctr_tf.errors import UsageError


def server_credentials(
    certificate: str | Path, key: str | Path, client_ca: str | Path | None = None
) -> grpc.ServerCredentials:
    """TLS for a PredictionServer.

    Args:
      certificate: PEM file of the server's certificate chain.
      key: PEM file of its private key.
      client_ca: PEM file of the authorities that sign client certificates; None for none.

    Raises:
      UsageError: when a file cannot be read.
    """
    authorities = None if client_ca is None else _read(client_ca, "client_ca")
    return grpc.ssl_server_credentials(
        [(_read(key, "key"), _read(certificate, "certificate"))],
        root_certificates=authorities,
        require_client_auth=authorities is not None,
    )


def _read(path: str | Path, what: str) -> bytes:
    """The bytes of a PEM file, or a UsageError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from error


def channel_credentials(authorities: str | Path | None) -> grpc.ChannelCredentials:
    """TLS for a client: trusts a PEM file of authorities, or the system's if it is None.

    Raises:
      UsageError: when the file cannot be read.
    """
    return grpc.ssl_channel_credentials(None if authorities is None else _read(authorities, "tls"))
