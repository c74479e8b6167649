"""Training steps: forward passes, gradients and weight updates in TensorFlow."""
