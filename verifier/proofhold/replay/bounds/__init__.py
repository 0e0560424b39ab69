"""What float32 may honestly give: for each operator its value in float64 and a bound on every rounding error.

`enclosure` says what a bound is and which constants it rests on; one module a family of operators holds the
formulas, `rules` puts them together. docs/dispute.md lists formula, K and source of each. A bound holds for
any order of summation, with fused multiply-add or without, with subnormals or flushed to zero; it does not
depend on a runtime. Where there is none, `NoBound` is raised, and whoever judges takes nothing.
"""
