"""``crossent explain``: the derivation of softmax cross-entropy with the reader's own numbers.

``inputs`` reads them, ``view`` chooses what is shown, ``walk`` computes every step with crossent's
core; ``page``, ``text``, ``latex`` and ``numpy_code`` write it down, ``picture`` draws the whole
pass. The walk follows docs/derivation.md: the same steps in the same order, with its symbols.
"""
