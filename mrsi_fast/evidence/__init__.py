"""The self-test of a scan: its own maps one octave lower, where the truth is known.

halving.py    the measured maps cut to half their matrix by the declared operator, and the detail that the cut took away
detail.py     added detail against measured detail: error, amplitude with its interval, noise floor
alignment.py  the place where an anatomical image explains the maps best
testimony.py  the findings as numbers and sentences
selftest.py   cut, bring back, compare, choose
"""
