"""Model files read and written without their frameworks: LiteRT, Keras, HDF5, PyTorch."""
