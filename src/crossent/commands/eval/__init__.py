"""``crossent eval``: saved outputs of a model, as `crossent.evaluate` measures them."""
