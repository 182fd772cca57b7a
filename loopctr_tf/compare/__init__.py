"""Many systems on one prepared folder under one protocol: an equal search, several seeds, one table.

``protocol.py`` says what is compared; ``search.py`` and ``runs.py`` train it, a process a system;
``efficiency.py`` measures what scoring costs; ``results.py`` gathers figures and ``report.py`` writes
them; ``compare.py`` goes from beginning to end.
"""
