"""Comparison of classifiers and of slices of images, by exact tests."""
