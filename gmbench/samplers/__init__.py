"""Markov chain kernels on binary vectors: shared by models, metrics and tasks, one file each."""
