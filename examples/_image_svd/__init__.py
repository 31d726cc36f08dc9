"""A photograph at low rank: in grey, in colour, and large, with tables and drawings."""
