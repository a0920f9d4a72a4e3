"""Kinds of charts, one file each. A file here with two functions is a kind; nothing else is edited for a new one.

* `matches(variable) -> bool`: whether this kind has something to show of a variable;
* `build(variable) -> Iterator[Chart]`: the charts.

Several kinds may match one variable: curves over steps and a profile along depth show different things.
"""
