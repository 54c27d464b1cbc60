"""The command line. The library returns; only this folder prints."""
