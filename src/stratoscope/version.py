"""The version, from the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("stratoscope")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"
