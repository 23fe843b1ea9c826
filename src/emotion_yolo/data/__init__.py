"""Data sets and what is made of them: dataset cards, the prepared set, sheets of crops, synthetic negatives.

`prepared` alone knows the layout of `datasets/prepared`. Preparation writes through it; training, export and evaluation
read through it.
"""
