"""What audit_peers.py compares, the workers that call each program, and how their answers are counted."""
