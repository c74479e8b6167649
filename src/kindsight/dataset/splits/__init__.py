"""Split a dataset into train, validation and test: stratified, by folds, by date or by file."""
