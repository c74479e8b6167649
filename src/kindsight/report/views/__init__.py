"""What the templates need of a report's data, section by section."""
