"""Fine-tuning of a backbone from a fitted frozen head."""
