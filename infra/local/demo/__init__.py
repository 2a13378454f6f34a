"""`make demo`: train beside an uninterrupted twin, take the VM away in five ways, and prove that nothing was lost."""
