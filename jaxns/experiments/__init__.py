"""Experiments: a config in; a table, figures and a record out. Needs the `experiments` extra."""
