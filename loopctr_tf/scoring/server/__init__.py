"""The embedded gRPC service."""
