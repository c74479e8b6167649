"""What more images would bring, and which ones to label next."""
