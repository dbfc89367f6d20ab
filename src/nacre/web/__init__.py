"""The page: artifacts, lineage, reports, usage and a playground, rendered on the server."""
