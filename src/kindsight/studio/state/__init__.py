"""The state of a project: images, labels, journal, table, thumbnails."""
