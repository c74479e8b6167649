"""Reports: one self-contained HTML page for each training run or dataset check."""
