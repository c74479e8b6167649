"""A faster drop-in for Keras's legacy ``keras.preprocessing.image``.

A notebook has to change one import: ``from kindsight.preprocessing.image import
ImageDataGenerator``. That module imports Keras; this package alone does not.
"""
