"""The version of this library, alone at the bottom of the house: receipts carry it."""

__version__ = "0.1.0"
