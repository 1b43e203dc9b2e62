"""`make bench`: what an operator's day and a bulk load cost, beside a hand-written script that does the same job."""
