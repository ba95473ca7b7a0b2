"""The few errors a user or a stage can meet.

`ScoreError` is for people: one line that names the place and the mend; command lines print it without a traceback.
`InfrastructureError` is for records: a server, a tool or a disk failed, so the episode has no outcome. It is retried,
then stored under that name, and never scored as a wrong answer (docs/HAZARDS.md 18, 29, 31).
"""


class ScoreError(Exception):
    """A mistake in a config, an input file or a command line; the message says where it is and how to mend it."""


class InfrastructureError(Exception):
    """Something outside the model's control failed; the episode that met it has no outcome."""
