"""The ladder's report: one HTML file that opens offline, and the table for a terminal."""
