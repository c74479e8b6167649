"""Web pages: kindsight's own JavaScript, and where that of others is."""
