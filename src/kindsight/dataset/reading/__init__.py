"""Read each image of a dataset once, and cache what is computed from it by its content."""
