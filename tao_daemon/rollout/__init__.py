"""An accepted adapter into serving, verified and reversible."""
