"""Theories of learning in phases: one file each, found by walking this folder and the entry points `stratoscope.theories`."""
