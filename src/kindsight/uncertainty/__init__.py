"""When a classifier does not decide, and prediction sets."""
