"""Scoring over gRPC: the client, for TensorFlow Serving as well, and the embedded service."""

from loopctr_tf.scoring.client.aio import AsyncScoringClient
from loopctr_tf.scoring.client.calls import ScoringError
from loopctr_tf.scoring.client.client import ScoringClient
from loopctr_tf.scoring.client.signature import Signature, TensorInfo
from loopctr_tf.scoring.server.server import PredictionServer
from loopctr_tf.scoring.tls import server_credentials

__all__ = [
    "AsyncScoringClient",
    "PredictionServer",
    "ScoringClient",
    "ScoringError",
    "Signature",
    "TensorInfo",
    "server_credentials",
]
