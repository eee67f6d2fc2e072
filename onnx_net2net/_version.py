"""The version of this program, which histories and files that it writes carry."""

__version__ = "0.1.0"
