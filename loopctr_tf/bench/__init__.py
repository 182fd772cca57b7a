"""Benchmarks of speed, relative to the machine's own matrix-product rate, and tests of servers."""
