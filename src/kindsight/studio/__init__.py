"""The studio: from images to a trained classifier in a browser, all on this machine."""
