"""Fine-tuning within a time budget: what fits, and the run."""
