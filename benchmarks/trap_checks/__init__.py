"""One file per trap: how each toolkit is asked, and by what rule it passes."""
