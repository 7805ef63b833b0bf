"""Calibration: the probability that a pair with a given score is a copy, and score thresholds for a wanted precision.

It is fitted on a run whose true pairs are known (`isc calibrate`), stored with the model, and used by match.py. `maps`
turns scores into probabilities, `thresholds` finds the thresholds, `shift` compares a run with the one of the fit.
"""
