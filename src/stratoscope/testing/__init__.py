"""For the tests of your own instruments and diagnoses: the rules as one check, and tiny subjects of every kind.

`stratoscope.testing.strategies` has hypothesis strategies; it needs hypothesis.
"""

from stratoscope.testing.contract import check_instrument
from stratoscope.testing.diagnosis_contract import check_diagnosis
from stratoscope.testing.subjects import SUBJECTS

__all__ = ["SUBJECTS", "check_diagnosis", "check_instrument"]
