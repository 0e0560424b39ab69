"""How far may two honest runs of a model be apart, and is that less than what any cheaper model is off?

`runtimes` runs it honestly in whatever is there, `cheats` makes cheaper models out of the model itself,
`measure` compares both with a re-run of each segment, `honesty` tells rounding from mistakes, `profile` draws
the tolerance, `report` shows it.
"""
