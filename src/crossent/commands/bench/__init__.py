"""``crossent bench``: how fast, frugal and exact the loss is, beside what else is installed.

    command                 what the command line calls
    run                     contenders in alternation, round by round
    report · settings       what a run found and was made with, as data; document: back from JSON
    process -> worker       one process a contender; requests and answers over its pipes
    measure · accuracy      what a worker does: time, peak memory, errors against the truth
    cases · arrays          what is computed, and on which numbers
    contender · contenders  by whom: a small class each
    limits · _limits        the machine itself, as a contender; its native loops
    table · markdown · chart    what a report looks like; text: their figures and sentences

Every process imports only what its contender needs.
"""
