"""Train a network by epochs in the Keras worker process; the small CNN."""
