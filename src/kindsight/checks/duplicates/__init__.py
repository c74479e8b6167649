"""Search for duplicate images: hash index, registration and groups of duplicates."""
