"""How values show themselves in a notebook: small self-contained HTML."""
