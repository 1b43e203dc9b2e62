"""Tests of cleanbill."""
