"""The break as a script of its own: an audit's repairs spelt out in plain code."""

from .write import Script, write_script

__all__ = ["Script", "write_script"]
