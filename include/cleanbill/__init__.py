"""cleanbill: nobody is charged for a value-added service they never ordered, never used or forgot."""

__version__ = "0.1.0"
