"""Parts of the gateway's benchmark and soak: a mock upstream, a bounded client, the servers under test, the tally."""
