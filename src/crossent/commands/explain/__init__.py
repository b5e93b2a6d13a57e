"""``crossent explain``: the derivation of softmax cross-entropy with the reader's own numbers.

``inputs`` reads them, ``view`` chooses what is shown, ``walk`` computes every number with
crossent's core. ``steps`` holds the steps in order, each told once in a template of its own
(assets/steps): ``page``, ``text``, ``latex`` and ``numpy_code`` bring what they write numbers and
tables with; ``command`` gives the same numbers as JSON, ``picture`` draws the whole pass. The walk
follows docs/derivation.md: the same steps in the same order, with its symbols.
"""
