"""Metrics: pure functions on tensors that return Estimates, one file each."""
