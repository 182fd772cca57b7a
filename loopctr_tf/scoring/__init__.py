"""Scoring over gRPC: the client, for TensorFlow Serving as well, and the embedded server.

Modules are loaded on first use, so that ``loopctr_tf.scoring.names`` stays free of TensorFlow.
"""

import importlib

_EXPORTS = {
    "AsyncScoringClient": "client.client",
    "PredictionServer": "server.server",
    "ScoringClient": "client.client",
    "ScoringError": "client.channel",
    "Signature": "client.signature",
    "TensorInfo": "client.signature",
    "server_credentials": "tls",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
