"""Holds the shapes and types of signatures while the tests run; an integer passes for a float, as for Python itself."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
