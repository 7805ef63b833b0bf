"""What a score says of a pair: how likely it is a copy, and from which score on a wanted share of the pairs are.

Fitted on a run whose true pairs are known (`isc-calibrate`), kept with the model, used by match.py. `maps` turns scores
into probabilities, `thresholds` finds the cuts, `shift` tells whether a run looks like the one it was fitted on.
"""
