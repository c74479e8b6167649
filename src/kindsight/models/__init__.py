"""Networks, as Keras models with the scaling of pixels inside."""
