"""Attempts, binds and samples as numbers that only grow or stand for now: what `serve` exports.

Pure and of a bounded size, whatever comes: names and ports have a number of series of their own,
and everything else is counted under `other`.
"""
