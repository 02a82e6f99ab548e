"""Training in rounds of local steps: parameter averaging and DiLoCo."""
