"""Pictures of the records of runs: for a terminal, as PNG or SVG, and as a page. Needs records, never a store."""
