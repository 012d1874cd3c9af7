"""Invented people and their portraits, for the sample source: who they are, and how they are drawn."""
