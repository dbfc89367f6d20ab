"""What the gateway remembers: keys, the ledger, limits and prices."""
