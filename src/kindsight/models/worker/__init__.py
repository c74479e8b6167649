"""Keras in a worker process: the process, its client and its side of the protocol."""
