"""Columns of many rows: sequences that behave like tuples and hold no Python object per row.

Texts are UTF-8 bytes with offsets, digests bytes, labels, splits and groups codes of their
different values. A column of few rows is a plain tuple.
"""
