"""Networks to train: the small CNN, cut and frozen backbones, fine-tuned backbones."""
