"""The ``crossent`` command: programs on top of the library, which imports nothing of them.

``cli`` says what each command takes; a command is a module or a folder of its name. ``terminal``
holds what they share: exit codes, one-line errors, progress, JSON.
"""
