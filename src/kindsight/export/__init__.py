"""Exports of a classifier for other runtimes, each compared with the classifier on images.

:mod:`.targets` has the table of targets. A target converts a bundle into files in a folder, and
opens them in their runtime; :mod:`.run` does both and writes the comparison (the proof).
"""
