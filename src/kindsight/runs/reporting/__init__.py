"""The report of a run: its facts, its images, its page and its model card."""
