"""What a person reads: findings with a stable code, their numbers and their source."""

from stratoscope.findings.finding import Evidence, Finding, Outcome

__all__ = ["Evidence", "Finding", "Outcome"]
