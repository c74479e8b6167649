"""What ``kindsight evaluate`` and ``kindsight compare`` do beyond metrics of one classifier."""
