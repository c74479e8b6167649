"""Web pages: kindsight's JavaScript, and the location of third-party JavaScript."""
