"""What is told: journal, events, ledger, health."""
