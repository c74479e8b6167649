"""Columns of many rows: sequences that behave like tuples but hold no Python object per row.

Texts are stored as UTF-8 bytes with offsets, digests as bytes, and labels, splits and groups as
codes of their distinct values. A column of few rows is a plain tuple.
"""
