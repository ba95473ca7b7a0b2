"""Figures of an experiment, one module and one command each; every one writes NAME.pdf, .png, .csv and .md.

    python -m score.report.figures.figure3a --corrections correct/bc20-s*/trajectories.jsonl --out-dir figures

A module turns rows into data (pure), then draws them. Shares and accuracies are fractions in a .csv, which is for
computing, and % in a figure and its .md, which are for reading.
"""
