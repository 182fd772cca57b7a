"""Requests of every kind for a served export, and what goes around them: load test and soak."""
