"""Pretrained networks without their classifier: table, weights, feature extraction, ensembles."""
