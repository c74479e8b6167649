"""The conformance kit of an export: images with expected pixels and probabilities."""
