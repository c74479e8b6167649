"""One picture: from a file to an array, and nothing else."""
