"""A head on the features of a frozen backbone."""
