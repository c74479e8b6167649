"""Keras's old ``preprocessing.image``, with the same answers in a fraction of the time.

``from kindsight.preprocessing.image import ImageDataGenerator`` is all that a notebook has to
change. :mod:`kindsight.preprocessing.image` imports Keras; this package by itself does not.
"""
