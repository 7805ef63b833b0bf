"""The quantities of a pair's evidence, in the order of its columns."""

EVIDENCE = (
    "features_query",  # local features of either picture
    "features_reference",
    "tentative",  # pairs of similar features
    "inliers",  # tentative pairs at different points that one map explains
    "log_nfa",  # −log₁₀ of a bound on that by chance; 0 without a map
    "inlier_share",
    "area_query",  # share of either picture that the other shows
    "area_reference",
    "spread_query",  # share of either picture inside the hull of the inliers
    "spread_reference",
    "agreement",  # mean local correlation of the grey values inside the aligned region, −1…1
    "agreeing_share",  # share of the region, weighted by contrast, where the correlation exceeds one half
    "contradiction",  # share of the region that the largest compact part with a low correlation has
    "colour_difference",  # mean difference of the colours of both whole pictures, 0…1; also without a map
    "flat",  # share of the commonest grey level in the flatter picture; also without a map
    "light",  # grey level, 0…1, that 5 % of the darker picture exceed; also without a map
    "region_colours",  # mean difference of the colours inside the aligned region, 0…1
)
