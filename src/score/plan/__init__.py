"""What an experiment will cost, before anything is submitted: jobs of a dry run times formulas of named assumptions.

`assumptions` are the numbers that nobody has measured here; `loads` (what a piece of work asks for), `estimate` (hours,
tokens, disk) and `schedule` (wall time) are pure functions; `dryrun`, `questions`, `sizes` and `__main__` look at files
and at Snakemake; `ledger` sets what was expected beside what a finished run's ledger says.
"""
