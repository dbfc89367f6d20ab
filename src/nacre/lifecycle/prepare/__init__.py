"""Stages that make dataset artifacts: from any source (`data`), from the interpreter (`stdlib`), from scikit-learn
(`digits`)."""
