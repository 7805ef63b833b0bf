"""Calibration: the probability that a pair with a given score is a copy, and score thresholds for a wanted precision.

It is fitted on runs whose true pairs are known (`isc calibrate`), stored with the model, and used by match.py. `maps`
turns scores into probabilities, `prior` corrects them for a run's share of copies and number of references,
`thresholds` finds the thresholds.
"""
