"""Stratoscope."""
