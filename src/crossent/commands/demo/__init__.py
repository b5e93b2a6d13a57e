"""``crossent demo``: a classifier of handwritten digits, trained before your eyes."""
