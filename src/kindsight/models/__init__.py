"""Networks: the only package, besides the drop-in, that imports Keras and TensorFlow."""
