"""Shadow models by the same defence as the network under audit, and what attackers who have them learn."""
