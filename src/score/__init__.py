"""SCoRe reproduction harness: distil a large agent into a small one by correcting the student's earliest error."""

__version__ = "0.1.0"
