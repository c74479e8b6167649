"""Code that commands share: options, progress, tables and text for the terminal."""
