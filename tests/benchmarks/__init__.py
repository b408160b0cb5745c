"""Ratios against the plain way of doing a thing, measured in one run. Never part of the tests: machines differ."""
