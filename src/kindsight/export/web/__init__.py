"""A classifier as a web page: offline in one file, or for a static host."""
