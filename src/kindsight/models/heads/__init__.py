"""Classifier heads: fitted with NumPy on frozen features, or trained as Keras layers."""
