"""Benchmarks that anybody can repeat: each measures the machine first and reports shares of that."""
