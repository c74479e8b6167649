"""From images to fitted arrays: features computed once, and the head on top of them."""
