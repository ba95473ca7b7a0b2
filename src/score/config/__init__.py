"""The experiment's config: `load` turns what Snakemake merged from YAML into a checked, frozen `Config`.

    python -m score.config --config config.yaml [--overlay configs/micro.yaml]

prints the resolved config. Every mistake is one line that names the place and, where there is one, the nearest valid
word.
"""

from score.config.load import load, read, read_merged
from score.config.schema import Agent, Config

__all__ = ["Agent", "Config", "load", "read", "read_merged"]
