"""Reports for people. Reads audit records, needs no torch."""
