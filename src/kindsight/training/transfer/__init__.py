"""Train a backbone with frozen and trainable layers, in phases."""
