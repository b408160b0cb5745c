"""The texts of new plugins, one real module a family: linted, typed, and tested like any other.

:mod:`bench.scaffold` copies one of them and puts a new name in place of ``my_attack``, ``MyAttack`` and ``My attack``.
"""
