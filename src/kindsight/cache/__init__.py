"""The cache folder of this machine and the files in it: SQLite tables and arrays of equal size."""
