"""An independent, plain, row-by-row computation of the marts and of the billing feed from a landing folder.

It shares no code with the pipeline (standard library only) and is meant to be read beside the written rules:
`landing` reads deliveries, `marts` computes every row, `feed` the lines of a billed month, `rules` holds the numbers.
"""
