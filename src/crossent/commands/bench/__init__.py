"""``crossent bench``: how fast, frugal and exact the loss is, beside what else is installed.

    command                 what the command line calls
    run · rounds            contenders in alternation, round by round -> report
    process -> worker       one process a contender, JSON lines over its pipes
    measure · accuracy      what a worker does: time, peak memory, errors against the truth
    contenders              one small class each; limits: the machine itself
    table · markdown · chart    what a report looks like; text: their figures and sentences

Every process imports only what its contender needs.
"""
