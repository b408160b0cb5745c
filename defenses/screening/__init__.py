"""What screens share: thresholds from clean data, a model's confidence in its answer, and pieces of programs to take away."""
