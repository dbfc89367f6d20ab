"""Parts of `audit_bank.py`: what models and pairs there are, how they are made, what is measured, what is published."""
