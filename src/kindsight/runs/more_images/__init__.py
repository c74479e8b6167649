"""The gain of more images, and the images to label next."""
