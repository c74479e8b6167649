"""Loaders of datasets: folders, tables, arrays in files and in memory, and file names."""
