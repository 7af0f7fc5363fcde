"""Pictures of what runs have recorded: for a terminal, as PNG or SVG, and as a page. Knows records, no store."""
